"""A real server on loopback whose every answer is a function of the path, well-behaved or not, and which logs requests."""

from __future__ import annotations

import asyncio
import gzip
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage

if TYPE_CHECKING:
    from tests.fetch.hosts import Hosts

Answering = Callable[["FaultServer", str, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def picture(seed: int, width: int = 400, height: int = 300, kind: str = "JPEG") -> bytes:
    """A smooth random picture as file bytes; equal seeds, equal bytes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, kind, quality=85)
    return stream.getvalue()


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole HTTP/1.1 response; `length` lies about the body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class FaultServer:
    """Serves `/kind/...`; `log` has (time, address dialled, path) of every request, `headers` the last request's text."""

    port: int = 0
    log: list[tuple[float, str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    open_now: int = 0
    open_most: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        return sum(entry[2] == path for entry in self.log)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = text.split(" ")[1]
            self.headers[path] = text
            self.log.append((time.monotonic(), writer.get_extra_info("sockname")[0], path))
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
            try:
                await ANSWERS[path.split("/")[1].split("?")[0]](self, path, writer)
                await writer.drain()
            finally:
                self.open_now -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def fixed(make: Callable[[str], bytes]) -> Answering:
    """An answer that is just bytes of the path."""

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(make(path))

    return answer


def _image(path: str) -> bytes:
    return response(picture(int(path.split("/")[2].partition(".")[0])), "Content-Type: image/jpeg")


async def _drip(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(response(b"", length=5000))
    while True:
        writer.write(b"\xff")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _slow(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.25)
    writer.write(_image(path))


async def _stall(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _endless(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        await writer.drain()


async def _reset_before(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    _reset(writer)


async def _reset_mid(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    body = picture(1)
    writer.write(response(body[:2000], length=len(body)))
    await writer.drain()
    await asyncio.sleep(0.05)
    _reset(writer)


async def _recovers(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """/recovers/<failures>/<status>/<seed>"""
    _, _, failures, status, seed = path.split("/")
    if server.count(path) <= int(failures):
        writer.write(response(b"later", status=f"{status} Later"))
    else:
        writer.write(_image(f"/image/{seed}"))


async def _opt_out(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(response(picture(1), "X-Robots-Tag: all", "x-robots-tag: NoAI, max-snippet: -1", "Content-Type: image/jpeg"))


ANSWERS: dict[str, Answering] = {
    "image": fixed(_image),
    "png": fixed(lambda path: response(picture(5, kind="PNG"))),
    "gif": fixed(lambda path: response(picture(6, kind="GIF"))),
    "small": fixed(lambda path: response(picture(7, 120, 90))),
    "huge-header": fixed(lambda path: response(_png_header(30_000, 20_000))),
    "html.jpg": fixed(lambda path: response(b"<html><body>gone</body></html>", "Content-Type: image/jpeg")),
    "svg": fixed(lambda path: response(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    "empty": fixed(lambda path: response(b"")),
    "cut-body": fixed(lambda path: response(picture(1)[:3000], length=len(picture(1)))),
    "cut-quietly": fixed(lambda path: b"HTTP/1.0 200 OK\r\n\r\n" + picture(1)[:3000]),
    "cut-chunked": fixed(lambda path: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\xff\xd8\xff\xe0\r\n"),
    "length-huge": fixed(lambda path: response(b"x", length=10 << 30)),
    "length-negative": fixed(lambda path: response(b"x", length=-5)),
    "length-twice": fixed(lambda path: response(b"abc", "Content-Length: 7")),
    "length-short": fixed(lambda path: response(picture(1), length=2500)),
    "not-http": fixed(lambda path: b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "header-huge": fixed(lambda path: response(b"x", "X-Long: " + "a" * 200_000)),
    "gzip": fixed(lambda path: response(gzip.compress(picture(1)), "Content-Encoding: gzip")),
    "loop": fixed(lambda path: response(b"", f"Location: {path}", status="302 Found")),
    "hops": fixed(lambda path: _hop(path)),
    "to-file": fixed(lambda path: response(b"", "Location: file:///etc/hostname", status="301 Moved")),
    "to-private": fixed(lambda path: response(b"", "Location: http://169.254.169.254/latest/meta-data", status="307 Moved")),
    "to-userinfo": fixed(lambda path: response(b"", "Location: http://a:b@127.0.0.1/x", status="308 Moved")),
    "to-nowhere": fixed(lambda path: response(b"", status="302 Found")),
    "status": fixed(lambda path: response(b"" if path[-3:] in ("204", "304") else b"no", status=f"{path[-3:]} Status")),
    "missing-noindex": fixed(lambda path: response(b"no", "X-Robots-Tag: noindex", status="404 Missing")),
    "busy-noai": fixed(lambda path: response(b"no", "X-Robots-Tag: noai", status="503 Busy")),
    "wait-long": fixed(lambda path: response(b"no", "Retry-After: 3600", status="429 Slow down")),
    "opt-out": _opt_out,
    "opt-out-plain": fixed(lambda path: response(picture(1), "X-Robots-Tag: all", "X-Robots-Tag: NoAI", "Content-Type: image/jpeg")),
    "tdm": fixed(lambda path: response(picture(1), "TDM-Reservation: 1")),
    "drip": _drip,
    "slow": _slow,
    "stall": _stall,
    "endless": _endless,
    "reset-before": _reset_before,
    "reset-mid": _reset_mid,
    "recovers": _recovers,
}  # fmt: skip


def _hop(path: str) -> bytes:
    left = int(path.split("/")[2])
    return _image("/image/9") if left == 0 else response(b"", f"Location: ../hops/{left - 1}", status="303 See Other")


def _png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0) + bytes(40)


@pytest.fixture(scope="session")
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def server(_loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    faults = FaultServer()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(faults.serve, "0.0.0.0", 0), _loop).result()
    faults.port = listening.sockets[0].getsockname()[1]
    yield faults
    _loop.call_soon_threadsafe(listening.close)


def quick(**changes: object) -> FetchSettings:
    """Settings for loopback: no pause between starts, short deadlines, no files that hosts have about themselves."""
    base: dict[str, object] = {
        "allow_addresses": ("127.0.0.0/8",), "host_interval_seconds": 0.0, "host_in_flight": 64, "backoff_seconds": 0.01,
        "backoff_cap_seconds": 0.05, "total_seconds": 5.0, "max_bytes": 1 << 20,
        "robots": False, "tdm_file": False,
    }  # fmt: skip
    return FetchSettings.model_validate(base | changes)


def fetch(urls: list[str], settings: FetchSettings, skips: list[str | None] | None = None, batch: int = 8) -> list[dict[str, Any]]:
    """Runs the stage over the URLs; one dict of added columns per URL."""
    rows = pa.table({"url": pa.array(urls, pa.string()), "skip": pa.array(skips or [None] * len(urls), pa.string())})
    with FetchStage(settings).open() as compute:
        batches = list(compute(iter(rows.combine_chunks().to_batches(max_chunksize=batch))))
    return [row for done in batches for row in done.to_pylist()]


@pytest.fixture
def hosts(_loop: asyncio.AbstractEventLoop) -> Iterator[Hosts]:
    from tests.fetch.hosts import serving

    with serving(_loop) as found:
        yield found
