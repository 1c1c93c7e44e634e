"""Faults that come before a request is read, each on a port of its own: TLS, handshakes, sockets that nobody serves."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.web.server import FaultServer, Serving, image_answer, reset

HOST = "127.3.0.1"


@dataclass(frozen=True)
class PortKind:
    """What has to become of `scheme`://HOST:port/, and how many connections the server sees meanwhile."""

    scheme: str
    reason: str | None
    connections: int = 1
    attempts: int = 0
    slow: bool = False

    @property
    def tries(self) -> int:
        return self.attempts or self.connections


PORT_KINDS: dict[str, PortKind] = {
    "tls_ok": PortKind("https", None),
    "tls_expired": PortKind("https", "tls_failed"),
    "tls_not_yet": PortKind("https", "tls_failed"),
    "tls_wrong_host": PortKind("https", "tls_failed"),
    "tls_stranger": PortKind("https", "tls_failed"),
    "tls_old": PortKind("https", "tls_failed"),
    "tls_alert": PortKind("https", "tls_failed"),
    "tls_long_chain": PortKind("https", "tls_failed"),
    "tls_garbage": PortKind("https", "tls_failed"),
    "plain_on_tls": PortKind("https", "tls_failed"),
    "tls_on_plain": PortKind("http", "connection_reset", 3),
    "tls_fin": PortKind("https", "connection_reset", 3),
    "tls_reset": PortKind("https", "connection_reset", 3),
    "tls_stall": PortKind("https", "connect_timeout", 3, slow=True),
    "never_read": PortKind("http", "timeout_total", slow=True),
    "refused": PortKind("http", "connect_failed", 0, 3),
    "syn_dropped": PortKind("http", "connect_timeout", 0, 3, slow=True),
}


@dataclass
class Ports:
    """The open ports by kind; `authority` is the file that makes `tls_ok` trusted (SSL_CERT_FILE)."""

    server: FaultServer
    authority: Path
    numbers: dict[str, int] = field(default_factory=dict)
    held: list[socket.socket] = field(default_factory=list)

    def url(self, kind: str) -> str:
        return f"{PORT_KINDS[kind].scheme}://{HOST}:{self.numbers[kind]}/image/3.jpg"

    def connections(self, kind: str) -> int:
        return self.server.accepts[HOST, self.numbers[kind]]


def environment(ports: Ports) -> dict[str, str]:
    """This process's, but for whom it trusts."""
    return os.environ | {"SSL_CERT_FILE": str(ports.authority)}


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def _long_chain(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    """A good certificate, followed by 300 others that prove nothing."""
    child = authority.create_child_ca()
    leaf = child.issue_cert(HOST)
    path = folder / "chain.pem"
    path.write_bytes(leaf.private_key_pem.bytes() + b"".join(blob.bytes() for blob in leaf.cert_chain_pems) + child.cert_pem.bytes() * 300)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def _contexts(folder: Path) -> tuple[Path, dict[str, ssl.SSLContext]]:
    authority, stranger = trustme.CA(), trustme.CA()
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    good = authority.issue_cert(HOST)
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    return trusted, {
        "tls_ok": _context(good),
        "tls_expired": _context(authority.issue_cert(HOST, not_before=now - 9 * day, not_after=now - day)),
        "tls_not_yet": _context(authority.issue_cert(HOST, not_before=now + day, not_after=now + 9 * day)),
        "tls_wrong_host": _context(authority.issue_cert("other.example", "127.3.0.2")),
        "tls_stranger": _context(stranger.issue_cert(HOST)),
        "tls_long_chain": _long_chain(authority, folder),
        "tls_on_plain": _context(good),
    }


async def _image(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(image_answer(3))
        await writer.drain()


def _after_hello(answer: bytes | None) -> Serving:
    """Waits for the client's first bytes; answers, or resets the connection when there is nothing to say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is None:
            return reset(writer)
        writer.write(answer)

    return serve


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


# A ServerHello of TLS 1.0 that chooses TLS_RSA_WITH_AES_128_CBC_SHA, and an alert that says protocol_version (RFC 5246).
_HELLO_1_0 = bytes.fromhex("160301002a 02000026 0301") + bytes(32) + bytes.fromhex("00 002f 00")
_ALERT = bytes.fromhex("15030100020246")

_PLAIN: dict[str, Serving] = {
    "tls_old": _after_hello(_HELLO_1_0),
    "tls_alert": _after_hello(_ALERT),
    "tls_garbage": _after_hello(b"\x00\xff\x13\x37" * 99),
    "plain_on_tls": _after_hello(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "tls_fin": _after_hello(b""),
    "tls_reset": _after_hello(None),
    "tls_stall": _silent,
    "never_read": _silent,
}


def _closed_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _full_port(held: list[socket.socket]) -> int:
    """A port whose queue of waiting connections is full, so that the kernel drops whoever knocks."""
    listener = socket.create_server((HOST, 0), backlog=0)
    held.append(listener)
    for _ in range(4):
        caller = socket.socket()
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
        held.append(caller)
    return int(listener.getsockname()[1])


@contextmanager
def open_ports(server: FaultServer, loop: asyncio.AbstractEventLoop, folder: Path) -> Iterator[Ports]:
    """Listens on all the ports while inside; `server` must be running on `loop`."""
    authority, contexts = _contexts(folder)
    ports = Ports(server, authority)

    async def start() -> None:
        for kind, context in contexts.items():
            ports.numbers[kind] = server.listen(HOST, tls=context, serve=_image)
        for kind, serve in _PLAIN.items():
            ports.numbers[kind] = server.listen(HOST, serve=serve)

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    ports.numbers |= {"refused": _closed_port(), "syn_dropped": _full_port(ports.held)}
    try:
        yield ports
    finally:
        for held in ports.held:
            held.close()
