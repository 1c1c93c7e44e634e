"""Ways to write the address of a machine that must not be reached, and ways to be sent there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import quote

PUBLIC, PUBLIC_V6 = "93.184.216.34", "2606:2800:21f::34"
PRIVATE_V4 = (
    "127.0.0.1",
    "169.254.169.254",
    "10.1.2.3",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "0.0.0.0",
    "198.18.0.1",
    "168.63.129.16",
)
PRIVATE_V6 = ("::1", "fd00:ec2::254", "fe80::1", "fec0::1", "fc00::7", "100::1", "2001:db8::1", "64:ff9b:1::1", "5f00::1", "::")

# Names of the name server in tests.web.namespace; all it does not know, it sends to 10.1.2.3.
PRIVATE_NAMES = (
    "loopback.test", "metadata.test", "ten.test", "zero.test", "v6.test", "mapped.test", "compatible.test", "nat64.test", "sixtofour.test",
    "local.test", "LOOPBACK.TEST", "ten.test.", "xn--e1aybc.test", "тест.test", "no-such-name.example",
)  # fmt: skip
SCHEMES = (
    "file:///etc/hostname", "file://10.1.2.3/etc/hostname", "ftp://10.1.2.3/x", "gopher://10.1.2.3:80/_GET", "data:image/png;base64,AA",
    "jar:http://10.1.2.3!/x", "unix:///run/x", "dict://10.1.2.3:80/x", "ldap://10.1.2.3/", "ws://10.1.2.3/", "blob:http://10.1.2.3/x",
    "http+unix://%2Frun%2Fx/", "view-source:http://10.1.2.3/",
)  # fmt: skip

_WIDE = str.maketrans("0123456789.", "０１２３４５６７８９．")
_CIRCLED = str.maketrans("123456789", "①②③④⑤⑥⑦⑧⑨")


def embeddings(inner: str) -> dict[str, str]:
    """IPv6 addresses that hold this IPv4 address, by the name of the form."""
    number = int(ipaddress.IPv4Address(inner))
    high, low = number >> 16, number & 0xFFFF
    return {
        "mapped": f"::ffff:{high:x}:{low:x}", "translated": f"::ffff:0:{high:x}:{low:x}", "compatible": f"::{high:x}:{low:x}",
        "nat64": f"64:ff9b::{high:x}:{low:x}", "6to4": f"2002:{high:x}:{low:x}::1", "isatap": f"2606:4700::5efe:{high:x}:{low:x}",
        "teredo": f"2001:0:808:808::{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
    }  # fmt: skip


def hosts_v4(address: str) -> Iterator[str]:
    """Spellings of an IPv4 address that some parser somewhere takes for it."""
    number = int(ipaddress.IPv4Address(address))
    a, b, c, d = ipaddress.IPv4Address(address).packed
    yield from (address, f"{address}.", f"{number}", f"0x{number:x}", f"0X{number:08X}", f"0{number:o}", f"0{number:012o}")
    yield from (f"{a}.{b}.{c << 8 | d}", f"{a}.{b << 16 | c << 8 | d}", f"0x{a:x}.{b << 16 | c << 8 | d}", f"0{a:o}.{b}.{c << 8 | d}")
    yield ".".join(f"0x{part:x}" for part in (a, b, c, d))
    yield ".".join(f"0{part:o}" for part in (a, b, c, d))
    yield ".".join(f"{part:03d}" for part in (a, b, c, d))
    yield ".".join(f"{part + 256}" for part in (a, b, c, d))
    yield f"0x{a:x}.0{b:o}.{c}.0x{d:02X}"
    yield f"{number + (1 << 32)}"
    yield from (address.translate(_WIDE), address.translate(_CIRCLED), address.replace(".", "。"), address.replace(".", "｡"))
    yield from (address.replace(".", "%2e"), "".join(f"%{ord(c):02x}" for c in address), f"%{ord(address[0]):x}{address[1:]}")
    yield from (f"{address}%00.example.com", f"{address}\u200b", f"{address}\u00ad", f" {address}", f"{address}\t", f"{address}%20")
    yield from (f"[{address}]", f"[::ffff:{address}]", f"[0:0:0:0:0:FFFF:{address}]", f"[::{address}]", f"[64:ff9b::{address}]")
    yield from (f"[{text}]" for text in embeddings(address).values())
    yield from (f"[::ffff:{address}%25lo]", f"[::ffff:{address}%lo]", f"[v1.{address}]")
    yield from (f"{address}:80", f"{address}:", f"{address}:8080", f"{address}:00080", f"{number}:6379", f"{address}:80:80")
    yield from (f"user@{address}", f"a:b@{address}", f"{PUBLIC}@{address}", f"{PUBLIC}:80@{address}", f"{PUBLIC}%40{address}")
    yield from (f"{PUBLIC}\\@{address}", f"{address}\\@{PUBLIC}", f"{PUBLIC}\\.{address}", f"{PUBLIC}%5c@{address}", f"{PUBLIC} @{address}")
    yield from (f"{address}#@{PUBLIC}", f"{address}?@{PUBLIC}", f"{address};@{PUBLIC}", f"{address},{PUBLIC}", f"{PUBLIC},{address}")


def hosts_v6() -> Iterator[str]:
    """Spellings of IPv6 addresses of this machine and its neighbours."""
    for text in PRIVATE_V6:
        address = ipaddress.IPv6Address(text)
        yield from (
            f"[{text}]",
            f"[{text.upper()}]",
            f"[{address.exploded}]",
            f"[{text}]:80",
            f"[{text}%25lo]",
            f"[{text}%lo]",
            f"[{text}%1]",
        )
        yield from (text, f"user@[{text}]", f"[{text}].", f"{text.replace(':', '-')}.ipv6-literal.net")


def direct() -> list[str]:
    """URLs that name a private address, or a name that leads to one."""
    hosts = [host for address in PRIVATE_V4 for host in hosts_v4(address)] + list(hosts_v6())
    names = [*PRIVATE_NAMES, "localhost", "LocalHost", "localhost.", "localhost.localdomain", "ip6-localhost", "0", "0.0", "0x0", "00"]
    urls = [f"http://{host}/image/1" for host in (*hosts, *names)]
    urls += [
        f"{start}10.1.2.3/image/1"
        for start in ("HTTP://", "http:\\\\", "http:/", "http:", "http:///", "//", "https://", " http://", "\thttp://")
    ]
    return [*urls, *SCHEMES]


def sent() -> list[str]:
    """URLs of the public server that send whoever asks to a private address."""
    targets = [f"http://{host}/image/1" for host in ("10.1.2.3", "127.0.0.1", "0", "2852039166", "0x7f.1", "[::1]", "[fd00:ec2::254]")]
    targets += [
        "http://[::ffff:10.1.2.3]/",
        "http://ten.test/",
        "http://10.1.2.3:8080/",
        "//10.1.2.3/image/1",
        "https://10.1.2.3/",
        *SCHEMES,
    ]
    targets += [
        "http://１０.１.２.３/",
        "http://user@10.1.2.3/",
        f"http://{PUBLIC}\\@10.1.2.3/",
        "\\\\10.1.2.3\\x",
        "/\\10.1.2.3/x",
        "http:10.1.2.3",
    ]
    base = f"http://{PUBLIC}"
    urls = [f"{base}/to/{code}?{quote(target, safe='')}" for target in targets for code in (301, 302, 303, 307, 308)]
    urls += [f"{base}/chain/3?{quote(target, safe='')}" for target in targets]
    return urls + [f"{base}/{way}?{quote(target, safe='')}" for target in targets[:3] for way in ("refresh", "alternate", "created")]
