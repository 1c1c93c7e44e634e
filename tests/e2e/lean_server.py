"""A web in one process, cheap enough not to be what is measured: `/i/N` answers as the number says, on every loopback address.

`python -m tests.e2e.lean_server PORT` prints its port and serves until it is ended; port 0 takes a free one.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

SITES = 1000
OK, MISSING, FORBIDDEN, OPTED_OUT, PAGE, CUT, BUSY, CLOSED, CHUNKED, PNG, BIG, MOVED = range(12)
MIX = (
    *[OK] * 76, *[MISSING] * 10, FORBIDDEN, OPTED_OUT, OPTED_OUT, PAGE, CUT, BUSY, CLOSED, CHUNKED, CHUNKED, PNG, PNG, BIG, MOVED, MOVED,
)  # fmt: skip
"""What becomes of number N: entry N modulo 100."""
REASONS = {
    MISSING: "http_not_found", FORBIDDEN: "http_forbidden", OPTED_OUT: "opt_out", PAGE: "not_an_image", CUT: "decode_truncated",
    BUSY: "http_server_error", CLOSED: "connection_reset",
}  # fmt: skip


def url(number: int, port: int) -> str:
    """Address of a number; neighbouring numbers lie on different addresses."""
    at = number % SITES
    return f"http://127.{10 + at // 250}.{at % 250}.1:{port}/i/{number}"


def expected(number: int) -> str | None:
    """The reason with which this number must end, None when it gives an image."""
    return REASONS.get(MIX[number % 100])


@contextmanager
def serving(port: int = 0) -> Iterator[int]:
    """Runs the server in a process of its own; yields its port."""
    command = [sys.executable, "-m", "tests.e2e.lean_server", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline() or b"-1")
    finally:
        process.kill()
        process.wait()


def _picture(seed: int, width: int, height: int, kind: str = "JPEG") -> bytes:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 255, (9, 12, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + draw.integers(-8, 9, (height, width, 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, kind, quality=85)
    return stream.getvalue()


def _response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


class _Answers:
    """All answers, made beforehand."""

    def __init__(self) -> None:
        jpegs = [_picture(seed, 200 + 20 * seed, 160 + 15 * seed) for seed in range(16)]
        self.of = {
            OK: [_response(body, "Content-Type: image/jpeg") for body in jpegs],
            MISSING: [_response(b"gone", status="404 Not Found")],
            FORBIDDEN: [_response(b"no", status="403 Forbidden")],
            OPTED_OUT: [_response(jpegs[0], "X-Robots-Tag: noai")],
            PAGE: [_response(b"<html><body>gone</body></html>", "Content-Type: image/jpeg")],
            CUT: [_response(jpegs[3][: len(jpegs[3]) // 2])],
            BUSY: [_response(b"later", status="503 Busy")],
            CLOSED: [b""],
            CHUNKED: [_chunked(jpegs[5])],
            PNG: [_response(_picture(1, 300, 300, "PNG"))],
            BIG: [_response(_picture(2, 1600, 1200))],
        }

    def answer(self, number: int) -> bytes:
        """Bytes for a number; none where the connection is to be closed."""
        kind = MIX[number % 100]
        if kind == MOVED:
            return _response(b"", f"Location: /i/{number // 100 * 100}", status="302 Found")
        choice = self.of[kind]
        return choice[number // 100 % len(choice)]


def _chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, answers: _Answers) -> None:
        self.answers, self.waiting = answers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            answer = self.answers.answer(int(path[3:])) if path.startswith(b"/i/") else _response(b"no", status="404 Not Found")
            if not answer:
                self.transport.abort()
                return
            self.transport.write(answer)


async def _serve(port: int) -> None:
    answers = _Answers()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(answers), "0.0.0.0", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
