"""What the demo's server does with a request: answer well, or misbehave in one known way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from curate.demo.corpus import Answer
from curate.demo.settings import ServerSettings

_ZEROS = bytes(64 << 10)
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


@dataclass
class Exchange:
    """One request with all that is needed to answer it; `url` turns a path into a URL of this server."""

    writer: asyncio.StreamWriter
    answer: Answer
    body: bytes
    with_body: bool
    keep_alive: bool
    url: Callable[[str], str]
    settings: ServerSettings

    def head(self, *headers: tuple[str, str], status: int | None = None) -> bytes:
        """Status line and headers; `headers` are added to the answer's own."""
        code = status or self.answer.status
        connection = ("Connection", "keep-alive" if self.keep_alive else "close")
        lines = [f"{name}: {value}" for name, value in (*self.answer.headers, *headers, connection)]
        return "\r\n".join([f"HTTP/1.1 {code} {_PHRASES.get(code, 'Unknown')}", *lines, "\r\n"]).encode("latin-1", "replace")

    async def send(self, *parts: bytes) -> None:
        """Writes the parts and waits until they have left."""
        self.writer.write(b"".join(parts) if self.with_body else parts[0])
        await self.writer.drain()


async def _ok(exchange: Exchange) -> None:
    await exchange.send(exchange.head(("Content-Length", str(len(exchange.body)))), exchange.body)


async def _redirect(exchange: Exchange) -> None:
    """`X-Location` in the answer names the path (or URL) to go to; another path may be on another host."""
    target = exchange.url(dict(exchange.answer.headers)["X-Location"])
    await exchange.send(exchange.head(("Location", target), ("Content-Length", "0")))


async def _until_close(exchange: Exchange) -> None:
    """No Content-Length: the body ends where the connection ends."""
    exchange.keep_alive = False
    await exchange.send(exchange.head(), exchange.body)


async def _cut_length(exchange: Exchange) -> None:
    """Announces twice the bytes that come."""
    exchange.keep_alive = False
    await exchange.send(exchange.head(("Content-Length", str(2 * len(exchange.body)))), exchange.body)


async def _cut_chunks(exchange: Exchange) -> None:
    """A chunked body whose last chunk never comes."""
    exchange.keep_alive = False
    size = f"{len(exchange.body) * 2:x}\r\n".encode()
    await exchange.send(exchange.head(("Transfer-Encoding", "chunked")), size, exchange.body)


async def _reset(exchange: Exchange) -> None:
    """Half the body, then a TCP reset."""
    exchange.keep_alive = False
    length = ("Content-Length", str(len(exchange.body)))
    await exchange.send(exchange.head(length), exchange.body[: len(exchange.body) // 2])
    peer: socket.socket = exchange.writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()


async def _drip(exchange: Exchange) -> None:
    """A few bytes now and then, until the client has had enough."""
    exchange.keep_alive = False
    settings, body = exchange.settings, exchange.body
    await exchange.send(exchange.head(("Content-Length", str(len(body)))))
    for start in range(0, len(body), settings.drip_bytes):
        await exchange.send(body[start : start + settings.drip_bytes])
        await asyncio.sleep(settings.drip_seconds)


async def _endless(exchange: Exchange) -> None:
    """Bytes without Content-Length and without end."""
    exchange.keep_alive = False
    await exchange.send(exchange.head(), exchange.body)
    while not exchange.writer.is_closing():
        await exchange.send(_ZEROS)


async def _huge_length(exchange: Exchange) -> None:
    """Announces a terabyte and starts to send it."""
    exchange.keep_alive = False
    await exchange.send(exchange.head(("Content-Length", str(1 << 40))), exchange.body)
    while not exchange.writer.is_closing():
        await exchange.send(_ZEROS)


async def _garbage(exchange: Exchange) -> None:
    """Something that is not HTTP."""
    exchange.keep_alive = False
    await exchange.send(b"\x00\x01\x02 this is not HTTP\r\n\r\n", b"")


async def _huge_headers(exchange: Exchange) -> None:
    """A megabyte of headers."""
    exchange.keep_alive = False
    filler = [(f"X-Filler-{number}", "x" * 1000) for number in range(1000)]
    await exchange.send(exchange.head(*filler, ("Content-Length", "0")), b"")


BEHAVIOURS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "ok": _ok,
    "redirect": _redirect,
    "until_close": _until_close,
    "cut_length": _cut_length,
    "cut_chunks": _cut_chunks,
    "reset": _reset,
    "drip": _drip,
    "endless": _endless,
    "huge_length": _huge_length,
    "garbage": _garbage,
    "huge_headers": _huge_headers,
}
"""Behaviour by name; each writes one answer and decides whether the connection stays open."""
