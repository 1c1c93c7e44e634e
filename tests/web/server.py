"""A server on raw sockets whose every answer is a function of the URL and of how often it was asked.

`/f/<kind>/<k>/<seed>` fails the first `k` times in the way that `tests.web.kinds` says and then serves image `seed`;
with `faults` off it serves the image at once. Everything that is accepted or asked for is written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.web.bodies import picture

Answering = Callable[["FaultServer", str, asyncio.StreamWriter], Coroutine[Any, Any, None]]
Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole HTTP/1.1 response; `length` lies about the body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def image_answer(seed: int) -> bytes:
    """The good answer."""
    return response(picture(seed), "Content-Type: image/jpeg")


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _everything() -> dict[str, Answering]:
    from tests.web.answers import ANSWERS

    return ANSWERS


@dataclass
class FaultServer:
    """Answers by path; `answers` says how.

    `log` has (time, address dialled, path) of every request, `headers` the last text of each path's request, `accepts`
    counts connections by (address dialled, port).
    """

    answers: dict[str, Answering] = field(default_factory=_everything)
    port: int = 0
    faults: bool = True
    log: list[tuple[float, str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    accepts: Counter[tuple[str, int]] = field(default_factory=Counter)
    open_now: int = 0
    open_most: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """An address of this server."""
        return f"http://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        """Requests for exactly this path so far."""
        return sum(entry[2] == path for entry in self.log)

    def times(self, start: str) -> list[float]:
        """When paths that start so were asked for."""
        return [entry[0] for entry in self.log if entry[2].startswith(start)]

    def listen(self, host: str = "0.0.0.0", port: int = 0, tls: ssl.SSLContext | None = None, serve: Serving | None = None) -> int:
        """Accepts connections from now on; returns the port. To be called on the running loop."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
        listener.setblocking(False)
        self._keep(self._accept(listener, tls, serve or self.serve))
        return int(listener.getsockname()[1])

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None, serve: Serving) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                self.accepts[connection.getsockname()[:2]] += 1
                self._keep(self._connected(connection, tls, serve))

    async def _connected(self, connection: socket.socket, tls: ssl.SSLContext | None, serve: Serving) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
        except (OSError, asyncio.CancelledError):
            connection.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = text.split(" ")[1]
            self.headers[path] = text
            self.log.append((time.monotonic(), writer.get_extra_info("sockname")[0], path))
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
            try:
                await self._answer(path, writer)
                await writer.drain()
            finally:
                self.open_now -= 1

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        name = path.split("/")[1].split("?")[0]
        if name != "f":
            answer = self.answers.get(name)
            return writer.write(response(b"", status="404 Not Found")) if answer is None else await answer(self, path, writer)
        _, _, kind, failures, seed = path.split("?")[0].split("/")
        if self.faults and self.count(path) <= int(failures):
            await self.answers[kind](self, path, writer)
        else:
            writer.write(image_answer(int(seed)))


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread; everything on it is cancelled at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def running(server: FaultServer, loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    """The server listens on all IPv4 addresses while inside."""

    async def start() -> None:
        server.port = server.listen()

    async def stop() -> None:
        for task in server.tasks:
            task.cancel()

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
