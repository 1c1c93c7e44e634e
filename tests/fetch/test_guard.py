"""No spelling of a private address is dialled, and no public one refused."""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from curate.fetch.exchange import host_as_sent
from curate.fetch.guard import BlockedAddress, Guard, check_url, embedded, is_public
from tests.fetch.conftest import FaultServer, fetch, quick

PRIVATE_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
]
PUBLIC_V4 = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "223.255.255.255",
]
PRIVATE_V6 = [
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "64:ff9b:1::1",
    "0:0:0:0:0:0:0:1",
]
PUBLIC_V6 = ["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "2400:cb00::1", "2001:200::1"]
HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0177.1",
    "127.0.0.1.",
    "0",
    "0.0",
    "0.0.0.0",
    "00000000",
    "0x0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
]


def _embeddings(inner: str) -> list[str]:
    number = int(ipaddress.IPv4Address(inner))
    high, low = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{inner}", f"::ffff:0:{high:x}:{low:x}", f"64:ff9b::{high:x}:{low:x}", f"2002:{high:x}:{low:x}::1",
        f"2001:0:808:808::{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}", f"2001:0:{high:x}:{low:x}::f7f7:f7f7", f"2606:4700::5efe:{high:x}:{low:x}",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [*PRIVATE_V4, *PRIVATE_V6, *(form for inner in PRIVATE_V4 for form in _embeddings(inner))])
def test_private_addresses_are_refused(text: str) -> None:
    assert not Guard().allows(text)


@pytest.mark.parametrize("text", [*PUBLIC_V4, *PUBLIC_V6, *(form for inner in PUBLIC_V4 for form in _embeddings(inner))])
def test_public_addresses_are_allowed(text: str) -> None:
    assert Guard().allows(text)


def test_embeddings_are_as_public_as_what_they_hold() -> None:
    drawn = random.Random(0)
    for _ in range(2000):
        inner = str(ipaddress.IPv4Address(drawn.getrandbits(32)))
        public = is_public(ipaddress.ip_address(inner))
        assert [Guard().allows(form) for form in _embeddings(inner)] == [public] * 7, inner


def test_agrees_with_the_standard_library_on_plain_public_addresses() -> None:
    drawn = random.Random(1)
    for _ in range(5000):
        address = ipaddress.IPv4Address(drawn.getrandbits(32))
        if is_public(address):
            assert address.is_global and not address.is_multicast


def test_allow_opens_just_its_network_in_every_form() -> None:
    guard = Guard(("127.0.0.0/8",))
    assert guard.allows("127.9.9.9") and guard.allows("::ffff:127.0.0.1") and guard.allows("8.8.8.8")
    assert not guard.allows("10.0.0.1") and not guard.allows("::1") and not guard.allows("nonsense")


def test_no_socket_is_made_for_a_refused_address() -> None:
    with pytest.raises(BlockedAddress):
        Guard().open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    with pytest.raises(BlockedAddress):
        Guard(("0.0.0.0/0",)).open_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("/run/x",)))
    Guard().open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))).close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a.example/x.jpg", None),
        ("https://a.example", None),
        ("http://a.example:8080/?q=1", None),
        ("HTTP://A.example/", None),
        ("file:///etc/passwd", "bad_scheme"),
        ("ftp://a.example/x", "bad_scheme"),
        ("data:image/png;base64,AA", "bad_scheme"),
        ("gopher://a.example/", "bad_scheme"),
        ("javascript:alert(1)", "bad_scheme"),
        ("jar:http://a!/b", "bad_scheme"),
        ("unix:///run/x", "bad_scheme"),
        ("ws://a.example/", "bad_scheme"),
        ("about:blank", "bad_scheme"),
        ("mailto:a@b", "bad_scheme"),
        ("", "bad_url"),
        ("//a.example/x", "bad_url"),
        ("a.example/x.jpg", "bad_url"),
        ("http://", "bad_url"),
        ("http:///x", "bad_url"),
        ("http://u:p@a.example/", "bad_url"),
        ("http://good@127.0.0.1/", "bad_url"),
        ("http://a\\@b.example/", "bad_url"),
        ("http://a.example:99999/", "bad_url"),
        ("http://a.example:0/", "bad_url"),
        ("http://a.example:x/", "bad_url"),
        ("http://[::1", "bad_url"),
        ("http://a.example/a b", "bad_url"),
        ("http://a.example/\r\nHost: b", "bad_url"),
        ("http://a.example/\x00", "bad_url"),
        ("http://a.example/" + "x" * 9000, "bad_url"),
    ],
)
def test_urls_that_are_not_tried(url: str, reason: str | None) -> None:
    assert check_url(url, 8192) == reason


@pytest.fixture
def canary() -> Iterator[tuple[int, list[object]]]:
    """A listener on every address of this machine that notes who connects."""
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    seen: list[object] = []

    def listen() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            seen.append(peer)
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    yield listener.getsockname()[1], seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_no_spelling_of_this_machine_is_ever_dialled(canary: tuple[int, list[object]]) -> None:
    port, seen = canary
    socket.create_connection(("127.0.0.1", port)).close()  # the canary sings when it should
    rows = fetch([f"http://{host}:{port}/x.jpg" for host in HOSTS], quick(allow_addresses=(), attempts=1, total_seconds=10.0), batch=64)
    assert len(seen) == 1
    found = {host: row["reason"] for host, row in zip(HOSTS, rows, strict=True)}
    assert set(found.values()) <= {"blocked_address", "bad_url", "dns_not_found", "dns_timeout", "connect_failed"}, found
    assert found["127.0.0.1"] == found["localhost"] == found["[::1]"] == "blocked_address"


def test_redirects_to_private_addresses_are_not_followed(server: FaultServer, canary: tuple[int, list[object]]) -> None:
    (row,) = fetch([server.url("/to-private")], quick(allow_addresses=("127.0.0.0/8",)))
    assert row["reason"] == "blocked_address" and row["final_url"] == "http://169.254.169.254/latest/meta-data"
    assert not canary[1]
    assert embedded(ipaddress.ip_address("8.8.8.8")) == ()


@pytest.mark.parametrize("url", ["http://no%2dsuch.example/", "http://%75ser.example.org/a.jpg", "http://*/", "http://a.example:99999/"])
def test_hosts_that_the_network_would_know_by_another_name_are_none(url: str) -> None:
    assert host_as_sent(url) is None
