"""Requests by way of a proxy that the user named; proxies that the environment names are never used.

With a proxy, this machine connects to nobody else and resolves no other name, so the check of the address that is dialled
sees the proxy alone. What a host says in its own text is still judged here. Where a *name* leads, only the proxy knows:
it has to refuse private addresses itself.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from curate.fetch.guard import Guard

_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NEAR = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "arpa", "test", "invalid")


def may_be_asked_for(host: str, guard: Guard) -> bool:
    """Whether a proxy may be asked for a host: a public address in its usual form, or a name of the public DNS.

    Names whose last label is a number count as addresses to some resolvers ("ends in a number", WHATWG URL standard);
    those of one label, and of domains that RFC 6761, 6762 and ICANN keep from the public DNS, lead to the proxy's own net.
    """
    try:
        return guard.allows(str(ipaddress.ip_address(host.strip("[]"))))
    except ValueError:
        name = host.lower().removesuffix(".")
        last = name.rpartition(".")[2]
        return bool(_NAME.fullmatch(name)) and not _NUMBER.fullmatch(last) and last not in _NEAR


def check_proxy(address: str) -> str:
    """The address if it is http://HOST:PORT and nothing more. Raises ValueError with what to change."""
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("proxy must be http://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("proxy must not carry a name or password: they would be stored in the pool")
    if not parts.port:
        raise ValueError("proxy needs a port: http://HOST:PORT")
    return address
