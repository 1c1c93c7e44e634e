"""URLs as they may be shown or passed on, and whom they belong to."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any

SECRET = "REDACTED"
_SECRETS = frozenset(
    """access_token accesskeyid api_key apikey auth authorization awsaccesskeyid googleaccessid hmac jwt key-pair-id password policy
    se sig signature sp spr sr st sv token x-amz-credential x-amz-security-token x-amz-signature x-goog-credential
    x-goog-signature x-oss-signature""".split()  # noqa: SIM905
)


def redacted(url: str) -> str:
    """The URL with the values of signing and token parameters replaced; any text will do, also what is no URL."""
    address, mark, rest = url.partition("?")
    query, hash_sign, fragment = rest.partition("#")
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = "&".join(f"{name}={SECRET}" if equals and name.lower() in _SECRETS else name + equals + value for name, equals, value in pairs)
    return f"{address}{mark}{shown}{hash_sign}{fragment}"


@functools.cache
def _suffixes() -> Any:
    """Public suffix list as shipped with tldextract: no download, no cache folder."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@functools.lru_cache(maxsize=65536)
def site(host: str) -> str:
    """Whom a host belongs to: its registrable domain (public suffix list), or itself when it is an address."""
    host = host.rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        found = _suffixes()(host)
        if found.domain and found.suffix:
            return f"{found.domain}.{found.suffix}"
        return host if found.suffix else ".".join(host.split(".")[-2:])  # the list's rule for endings that it lacks
