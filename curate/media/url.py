"""URLs as they may be shown or passed on."""

from __future__ import annotations

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
