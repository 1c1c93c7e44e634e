"""A web of many hosts on loopback, each with a robots.txt and a tdmrep.json of its own, which logs what it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fetch.conftest import picture, response

STALL = b"\x00stall"
HANG_UP = b"\x00hang up"


@dataclass
class Hosts:
    """`files` maps (host, path) to a whole response; `/image…` is a picture, all else is not there."""

    port: int = 0
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    _hosts: int = 0

    def add(self, robots: bytes | None = None, tdm: bytes | None = None) -> str:
        """A new host; returns its name."""
        self._hosts += 1
        host = f"127.9.{self._hosts // 250}.{self._hosts % 250 + 1}"
        if robots is not None:
            self.files[host, "/robots.txt"] = robots
        if tdm is not None:
            self.files[host, "/.well-known/tdmrep.json"] = tdm
        return host

    def url(self, host: str, path: str = "/image") -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self, host: str) -> list[str]:
        """Paths asked for at one host, in order."""
        return [path for found, path in self.log if found == host]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode("latin-1")
            self.log.append((host, path))
            answer = self.files.get((host, path)) or (response(picture(1, 64, 48)) if path.startswith("/image") else text("no", 404))
            if answer == STALL:
                await asyncio.sleep(60)
            elif answer != HANG_UP:
                writer.write(answer.replace(b"{port}", str(self.port).encode()))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def text(body: str | bytes, status: int = 200, *headers: str) -> bytes:
    """A whole response."""
    return response(body.encode() if isinstance(body, str) else body, *headers, status=f"{status} Status")


def moved(status: int, to: str) -> bytes:
    """A redirect; `{port}` in it is the server's."""
    return f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@contextmanager
def serving(loop: asyncio.AbstractEventLoop) -> Iterator[Hosts]:
    """Serves on a loop that runs in a thread."""
    hosts = Hosts()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(hosts.serve, "0.0.0.0", 0), loop).result()
    hosts.port = listening.sockets[0].getsockname()[1]
    yield hosts
    loop.call_soon_threadsafe(listening.close)
