"""Which addresses may be dialled, and which URLs are well formed enough to try.

The check that counts is on the address of the socket that is about to connect: nothing a name resolves to, no
redirect and no odd spelling of an address gets past it. Refused are the networks that the IANA special-purpose
registries (RFC 6890 and successors) do not mark globally reachable, and 168.63.129.16, at which Azure serves its own
guests; IPv6 addresses that carry an IPv4 address are judged by both.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AddressInfo = tuple[int, int, int, str, tuple[object, ...]]

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_ISATAP_MARKS = (0x00005EFE, 0x02005EFE)


class BlockedAddress(OSError):
    """A socket to a private, loopback or reserved address was asked for; it was not made."""


class Guard:
    """Lets public addresses through, and those in `allow`, a list of CIDRs (default none)."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allow: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in allow)
        self.allows = functools.lru_cache(maxsize=65536)(self._allows)

    def _allows(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        faces = (address, *embedded(address))
        if any(face in network for face in faces for network in self._allow):
            return True
        return is_public(address)

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """Makes the socket that will connect to `info`, as getaddrinfo gives it; raises BlockedAddress instead."""
        family, kind, protocol, _, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not self.allows(str(address[0])):
            raise BlockedAddress("blocked address")
        return socket.socket(family, kind, protocol)

    @staticmethod
    def open_any_socket(info: AddressInfo) -> socket.socket:
        """Makes the socket to a proxy, which may be at any address: the user named it."""
        family, kind, protocol, _, _ = info
        return socket.socket(family, kind, protocol)


def is_public(address: Address) -> bool:
    """Whether packets to this address go to the public internet, whatever form the address has."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    inner = embedded(address)
    if not all(is_public(face) for face in inner):
        return False
    if any(address in form for form in (_MAPPED, _TRANSLATED, _COMPATIBLE, _NAT64, _SIX_TO_FOUR, _TEREDO)):
        return bool(inner)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


def embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """IPv4 addresses inside an IPv6 address: mapped, translated (SIIT), compatible, NAT64, 6to4, Teredo (server and
    client) and ISATAP; empty for other addresses."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    number = int(address)
    last = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if any(address in form for form in (_MAPPED, _TRANSLATED, _COMPATIBLE, _NAT64)):
        return (last,)
    if address in _SIX_TO_FOUR:
        return (ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (ipaddress.IPv4Address(number >> 64 & 0xFFFFFFFF), ipaddress.IPv4Address(~number & 0xFFFFFFFF))
    return (last,) if number >> 32 & 0xFFFFFFFF in _ISATAP_MARKS else ()


def check_url(url: str, max_characters: int) -> str | None:
    """Reason for which a URL (or redirect target) is not requested, or None: bad_scheme, bad_url.

    Only what is wrong with the text; where it leads is judged when connecting.
    """
    if not url or len(url) > max_characters or _NEVER.search(url):
        return "bad_url"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "bad_url"
    if parts.scheme not in ("http", "https"):
        return "bad_scheme" if parts.scheme else "bad_url"
    if not (parts.hostname or "").strip(".") or "@" in parts.netloc or port == 0:
        return "bad_url"
    return None


_NEVER = re.compile(r"[\x00-\x1f\x7f\\\s]")
