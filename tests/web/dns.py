"""A name server for tests: each answer is a function of the question, every question is logged, and it can play dead.

    with serve_names(zone) as names:   # names.address is "127.0.0.1:PORT"
        names.dead = True              # from here on it hears and logs, and says nothing

`zone(name, kind, before)` gives the `Reply`; `before` counts how often the same question came earlier, so that answers
may change from one question to the next (rebinding). Wire format: RFC 1035, 4.1; UDP only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5
KINDS = {1: "A", 28: "AAAA"}


@dataclass(frozen=True)
class Reply:
    """What is said: `addresses` of both families (only those of the kind asked for are sent), or an error code.

    `silent` says nothing at all; `delay_seconds` passes before anything is said.
    """

    addresses: tuple[str, ...] = ()
    ttl: int = 300
    code: int = NO_ERROR
    silent: bool = False
    delay_seconds: float = 0.0


Zone = Callable[[str, str, int], Reply]


@dataclass(frozen=True)
class Question:
    """One line of the log: when, which name, A or AAAA."""

    at: float
    name: str
    kind: str


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers from `zone`.

    With `per_second` it answers that many questions a second at most: others wait, and those that would have to wait
    longer than `patience_seconds` are dropped, as an overrun resolver does.
    """

    zone: Zone
    per_second: float | None = None
    patience_seconds: float = 1.0
    dead: bool = False
    address: str = ""
    log: list[Question] = field(default_factory=list)
    dropped: int = 0
    waiting: int = 0
    waiting_most: int = 0
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    free_at: float = 0.0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind, end = parse_question(data)
        self.log.append(Question(time.monotonic(), name, kind))
        before = self.seen[name, kind]
        self.seen[name, kind] += 1
        if self.dead:
            return
        wait_seconds = self._turn()
        reply = self.zone(name, kind, before)
        if wait_seconds is None or reply.silent:
            return
        packet = build_reply(data, end, kind, reply)
        self.waiting += 1
        self.waiting_most = max(self.waiting_most, self.waiting)
        if wait_seconds + reply.delay_seconds > 0:
            asyncio.get_running_loop().call_later(wait_seconds + reply.delay_seconds, self._send, packet, addr)
        else:
            self._send(packet, addr)

    def _turn(self) -> float | None:
        """Seconds until this question's turn; None when it is dropped."""
        if self.per_second is None:
            return 0.0
        now = time.monotonic()
        wait_seconds = max(0.0, self.free_at - now)
        if wait_seconds > self.patience_seconds:
            self.dropped += 1
            return None
        self.free_at = max(self.free_at, now) + 1 / self.per_second
        return wait_seconds

    def _send(self, packet: bytes, addr: tuple[str, int]) -> None:
        self.waiting -= 1
        if not self.transport.is_closing() and not self.dead:
            self.transport.sendto(packet, addr)

    def questions(self, name: str) -> list[str]:
        """Kinds asked for a name, in order."""
        return [question.kind for question in self.log if question.name == name]


def parse_question(data: bytes) -> tuple[str, str, int]:
    """(name in lower case, kind, where the question ends) of a query."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1").lower())
        at += 1 + data[at]
    (number,) = struct.unpack_from(">H", data, at + 1)
    return ".".join(labels), KINDS.get(number, str(number)), at + 5


def build_reply(query: bytes, end: int, kind: str, reply: Reply) -> bytes:
    """The packet that answers `query`, whose question ends at `end`."""
    parsed = [ipaddress.ip_address(text) for text in reply.addresses] if reply.code == NO_ERROR else []
    chosen = [address.packed for address in parsed if (address.version == 4) == (kind == "A")] if kind in KINDS.values() else []
    number = next((number for number, name in KINDS.items() if name == kind), 0)
    flags = 0x8180 | reply.code
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(chosen), 0, 0) + query[12:end]
    return head + b"".join(struct.pack(">HHHIH", 0xC00C, number, 1, reply.ttl, len(raw)) + raw for raw in chosen)


@contextmanager
def serve_names(zone: Zone, host: str = "127.0.0.1", port: int = 0, per_second: float | None = None) -> Iterator[NameServer]:
    """Runs a name server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = NameServer(zone, per_second)
    listening = loop.create_datagram_endpoint(lambda: server, local_addr=(host, port))
    transport, _ = asyncio.run_coroutine_threadsafe(listening, loop).result()
    bound = transport.get_extra_info("sockname")
    server.address = f"{bound[0]}:{bound[1]}"
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(transport.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
