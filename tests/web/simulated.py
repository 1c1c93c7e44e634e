"""A web in one process: many hosts, slow and broken in the shares that real lists have; a pure function of its addresses.

    python -m tests.web.simulated ROWS HOSTS   # serves DNS on 127.0.0.1:53 and HTTP on port 80 of all its addresses

Of the rows, 12 % have a host without DNS (8 % no such name, 2 % SERVFAIL, 2 % silence), 8 % are 404 or 410, 3 % say 429
with Retry-After until that time is over, 2 % drip a byte every half second and break off after 25 s. All others are
JPEGs of 20 to 60 kB. Latency is lognormal with median 200 ms and 99th percentile 8 s, capped at 20 s. The resolver
answers 500 questions a second.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import uvloop
from PIL import Image

from tests.web.dns import NO_SUCH_NAME, SERVER_FAILURE, NameServer, Reply

ADDRESSES = "20.0.0.0/8"  # public, and nobody's business in a network of one's own
QUESTIONS_PER_SECOND = 500.0
MEDIAN_SECONDS, P99_SECONDS, MOST_SECONDS = 0.2, 8.0, 20.0
DRIP_SECONDS, DRIP_PAUSE_SECONDS = 25.0, 0.5
PICTURES = 64

_SIGMA = math.log(P99_SECONDS / MEDIAN_SECONDS) / statistics.NormalDist().inv_cdf(0.99)


def draw(*words: object) -> float:
    """A number in (0, 1) that these words always give."""
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return (int.from_bytes(digest[:7], "big") + 0.5) / 2**56


def latency_seconds(address: str) -> float:
    """How long the server thinks about an address before it says anything."""
    return min(MOST_SECONDS, MEDIAN_SECONDS * math.exp(_SIGMA * statistics.NormalDist().inv_cdf(draw("latency", address))))


@dataclass(frozen=True)
class World:
    """`rows` addresses on `hosts` hosts, each a registrable domain of its own."""

    rows: int
    hosts: int

    def host(self, number: int) -> str:
        """Name of a host."""
        return f"img.s{number:05d}.com"

    def path(self, row: int) -> str:
        """Path of a row."""
        return f"/pictures/{row}.jpg"

    def url(self, row: int) -> str:
        """Address of a row."""
        return f"http://{self.host(row % self.hosts)}{self.path(row)}"

    def name_kind(self, host: int) -> str:
        """good, gone, broken or silent."""
        at = draw("name", host)
        return "gone" if at < 0.08 else "broken" if at < 0.10 else "silent" if at < 0.12 else "good"

    def kind(self, row: int) -> str:
        """picture, missing, busy or drip, for rows whose host has a name; shares are of all rows."""
        at = draw("kind", row) * 0.88
        return "missing" if at < 0.08 else "busy" if at < 0.11 else "drip" if at < 0.13 else "picture"

    def fetchable(self, row: int) -> bool:
        """Whether a client that is patient enough gets this picture."""
        return self.name_kind(row % self.hosts) == "good" and self.kind(row) in ("picture", "busy")

    def answer(self, name: str, kind: str, before: int) -> Reply:
        """What its name server says; the first answer for a name takes longer."""
        number = name.removeprefix("img.s").removesuffix(".com")
        if not number.isdigit() or int(number) >= self.hosts:
            return Reply() if not name else Reply(code=NO_SUCH_NAME)
        host = int(number)
        delay_seconds = 0.0 if before else 0.02 * math.exp(statistics.NormalDist().inv_cdf(draw("dns", host)))
        address = f"20.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"
        return {
            "gone": Reply(code=NO_SUCH_NAME, delay_seconds=delay_seconds),
            "broken": Reply(code=SERVER_FAILURE, delay_seconds=delay_seconds),
            "silent": Reply(silent=True),
            "good": Reply((address,), delay_seconds=delay_seconds),
        }[self.name_kind(host)]


@functools.cache
def pictures() -> list[bytes]:
    """Photo-like JPEGs of 20 to 60 kB."""
    made = []
    for seed in range(PICTURES):
        random = np.random.default_rng(seed)
        width, height = int(random.integers(360, 640)), int(random.integers(360, 640))
        coarse = Image.fromarray(random.integers(0, 255, (9, 12, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, np.float32) + random.normal(0, 9, (height, width, 3))
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=80)
        made.append(stream.getvalue())
    return made


@dataclass
class Book:
    """What the server remembers of one round: when each picture first left whole, and when a busy one was first asked."""

    begun: float = field(default_factory=time.monotonic)
    served: dict[int, float] = field(default_factory=dict)
    first_asked: dict[int, float] = field(default_factory=dict)
    requests: int = 0


class Connection(asyncio.Protocol):
    """One connection: a request at a time, kept alive."""

    def __init__(self, world: World, shelf: list[Book], names: NameServer) -> None:
        self.world, self.shelf, self.names = world, shelf, names
        self.heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if b"\r\n\r\n" not in self.heard:
            return
        head, self.heard = self.heard.decode("latin-1"), b""
        path = head.split(" ", 2)[1]
        host = next((line[6:] for line in head.split("\r\n") if line.lower().startswith("host: ")), "")
        if path.startswith("/-/"):
            return self.send(200, json.dumps(self.control(path)).encode())
        self.shelf[-1].requests += 1
        self.loop.call_later(latency_seconds(host + path), self.reply, path)

    def control(self, path: str) -> dict[str, object]:
        """/-/new opens a new book; anything else reads the present one."""
        if path == "/-/new":
            self.shelf[:] = [Book()]
            self.names.log.clear()
            self.names.seen.clear()
            self.names.dropped = 0
        book = self.shelf[-1]
        seconds = sorted(at - book.begun for at in book.served.values())
        return {"served": seconds, "requests": book.requests, "questions": len(self.names.log), "dropped": self.names.dropped}

    def reply(self, path: str) -> None:
        name = path.removeprefix("/pictures/").removesuffix(".jpg")
        if self.transport.is_closing():
            return
        if not name.isdigit():
            return self.send(404, b"")  # robots.txt and the like
        row, book = int(name), self.shelf[-1]
        kind = self.world.kind(row)
        if kind == "missing":
            return self.send(404 if draw("gone", row) < 0.8 else 410, b"no longer here")
        if kind == "drip":
            return self.drip(pictures()[row % PICTURES], time.monotonic() + DRIP_SECONDS)
        if kind == "busy":
            after = 1 + int(3 * draw("after", row))
            if time.monotonic() < book.first_asked.setdefault(row, time.monotonic()) + after:
                return self.send(429, b"later", f"Retry-After: {after}\r\n")
        book.served.setdefault(row, time.monotonic())
        self.send(200, pictures()[row % PICTURES])

    def send(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} Said\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.transport.write(head.encode() + body)

    def drip(self, body: bytes, until: float, at: int = 0) -> None:
        if self.transport.is_closing() or time.monotonic() > until:
            return self.transport.close()
        if at == 0:
            self.transport.write(f"HTTP/1.1 200 Said\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        self.transport.write(body[at : at + 1])
        self.loop.call_later(DRIP_PAUSE_SECONDS, self.drip, body, until, at + 1)


async def serve(world: World) -> None:
    """Until it is killed."""
    loop, shelf = asyncio.get_running_loop(), [Book()]
    names = NameServer(world.answer, QUESTIONS_PER_SECOND)
    await loop.create_datagram_endpoint(lambda: names, local_addr=("127.0.0.1", 53))
    pictures()
    server = await loop.create_server(lambda: Connection(world, shelf, names), "0.0.0.0", 80, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(World(int(sys.argv[1]), int(sys.argv[2]))))
