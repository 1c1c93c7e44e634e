"""A worker's line to the broker: starts one where there is none, says what it wants in few writes, outlives it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BufferedRWPair
from pathlib import Path
from typing import Any, BinaryIO, cast

from curate.errors import LocalFault
from curate.fetch import broker

_OPEN_SECONDS = 15.0
_POLL_SECONDS = 0.02
_COMPANY_SECONDS = 0.005
_SEEDED_SECONDS = 3600.0
_REMEMBERED = 256  # published texts that a broker that was killed may not have read


class Deferred(Exception):
    """The site is over budget: a start is further away than the caller would wait; no request was made."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not within {seconds:.1f} s")
        self.seconds = seconds


@dataclass(slots=True)
class Ask:
    """One request as the broker knows it; `granted` is done when it may start."""

    site: str
    in_flight: int
    gap_seconds: float
    patience_seconds: float
    granted: asyncio.Future[None]


@dataclass(slots=True)
class Search:
    """One question as the broker knows it; `answer` is (verb, text): d, x, or f when we are to find out."""

    key: str
    answer: asyncio.Future[tuple[str, str]]
    finder: bool = False


@dataclass(eq=False)
class Link(asyncio.Protocol):
    """The connection of one event loop; made by `open_link`."""

    folder: Path
    transport: asyncio.Transport | None = None
    asks: dict[int, Ask] = field(default_factory=dict)
    searches: dict[int, Search] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._out: list[str] = []
        self._rest = b""
        self._number = 0
        self._hurried = False
        self._timer: asyncio.TimerHandle | None = None
        self._published: deque[str] = deque(maxlen=_REMEMBERED)
        self._closing = False
        self._reopening: asyncio.Task[None] | None = None
        self._fault: LocalFault | None = None

    # -- what a worker says

    async def start(self, site: str, in_flight: int, gap_seconds: float, patience_seconds: float) -> int:
        """Waits until a request may start; returns its number. Negative patience waits for ever. Raises Deferred."""
        number = self._next()
        ask = self.asks[number] = Ask(site, in_flight, gap_seconds, patience_seconds, self._loop.create_future())
        self._say(f"a {number} {site} {in_flight} {gap_seconds} {patience_seconds}")
        try:
            await ask.granted
        except BaseException as error:
            self.asks.pop(number, None)
            if not isinstance(error, Deferred):
                self._say(f"r {number}")
            raise
        return number

    def began(self, number: int) -> None:
        """The site has the request."""
        self._mention(f"b {number}")

    def over(self, number: int) -> None:
        """The request ended."""
        if self.asks.pop(number, None):
            self._mention(f"r {number}")

    async def look(self, key: str) -> tuple[str | None, int]:
        """What is known of `key`, as (text, number). Without text this caller must find out and `publish` or `drop`."""
        number = self._next()
        search = self.searches[number] = Search(key, self._loop.create_future())
        self._say(f"l {number} {key}")
        try:
            verb, text = await search.answer
        except BaseException:
            self.drop(number)
            raise
        if verb == "f":
            search.finder = True
            return None, number
        del self.searches[number]
        return text, number

    def publish(self, number: int, text: str, expires: float | None) -> None:
        """Tells what was found out; kept until `expires` (seconds since 1970), or told only to who waits for it."""
        search = self.searches.pop(number)
        if expires is None:
            self._say(f"x {number} {text}")
        else:
            self._say(f"p {number} {expires:.3f} {text}")
            self._published.append(f"s {search.key} {expires:.3f} {text}")

    def drop(self, number: int) -> None:
        """Nothing was found out; somebody else may try."""
        if self.searches.pop(number, None):
            self._say(f"q {number}")

    async def close(self) -> None:
        """Says what is left to say and hangs up."""
        self._closing = True
        self._flush()
        if self._reopening:
            self._reopening.cancel()
        if self.transport:
            self.transport.close()

    def _next(self) -> int:
        if self._fault:
            raise self._fault
        self._number += 1
        return self._number

    def _say(self, line: str) -> None:
        """Queues a line; one write takes all that is said in one turn of the loop."""
        self._out.append(line)
        if not self._hurried:
            self._hurried = True
            self._loop.call_soon(self._flush)

    def _mention(self, line: str) -> None:
        """Queues a line that may wait a moment for company: it only makes the broker more careful to hear it late."""
        self._out.append(line)
        if not self._hurried and self._timer is None:
            self._timer = self._loop.call_later(_COMPANY_SECONDS, self._flush)

    def _flush(self) -> None:
        self._hurried = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._out and self.transport:
            self.transport.write(("\n".join(self._out) + "\n").encode(errors="backslashreplace"))
            self._out = []

    # -- what the broker answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol; a new broker is told what we hold and want."""
        self.transport = cast(asyncio.Transport, transport)
        self._rest, self._out = b"", [*self._published]
        for number, ask in self.asks.items():
            known = f"{number} {ask.site} {ask.in_flight} {ask.gap_seconds}"
            if not ask.granted.done():
                self._out.append(f"a {known} {ask.patience_seconds}")
            elif ask.granted.exception() is None:
                self._out.append(f"h {known}")
        self._out += [f"{'k' if search.finder else 'l'} {number} {search.key}" for number, search in self.searches.items()]
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if self._rest:
            data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            verb, number, *rest = line.decode().split(" ")
            if verb == "g" or verb == "n":
                self._decide(int(number), Deferred(float(rest[0])) if rest else None)
            elif (search := self.searches.get(int(number))) and not search.answer.done():
                search.answer.set_result((verb, rest[0] if rest else ""))

    def _decide(self, number: int, refusal: Deferred | None) -> None:
        ask = self.asks.get(number)
        if ask is None or ask.granted.done():
            return
        if refusal is None:
            ask.granted.set_result(None)
        else:
            ask.granted.set_exception(refusal)

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio.Protocol; the broker was killed, so another is started."""
        self.transport = None
        if not self._closing:
            self._reopening = self._loop.create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            await _connect(self)
        except LocalFault as fault:
            self._fault = fault
            waiting: list[asyncio.Future[Any]] = [ask.granted for ask in self.asks.values()]
            for future in [*waiting, *(search.answer for search in self.searches.values())]:
                if not future.done():
                    future.set_exception(fault)


async def open_link() -> Link:
    """A line to this machine's broker, on the running loop. Raises LocalFault."""
    link = Link(runtime_folder())
    await _connect(link)
    return link


async def _connect(link: Link) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _OPEN_SECONDS
    path = str(link.folder / broker.SOCKET)
    while True:
        try:
            await loop.create_unix_connection(lambda: link, path)
            return
        except OSError as error:
            if loop.time() > deadline:
                raise LocalFault(f"the broker of requests does not answer at {path} ({error.strerror}); nothing is lost") from None
        await asyncio.to_thread(start_broker, link.folder)
        await asyncio.sleep(_POLL_SECONDS)


def seed(name: str, known: Iterable[tuple[str, float, str]]) -> None:
    """Tells the broker (key, expires, text) of what is known from elsewhere; a `name` it heard within the hour is not repeated.

    Returns when the broker has it, whoever told. Blocks; not for event loops. Raises LocalFault.
    """
    folder = runtime_folder()
    deadline = time.monotonic() + _OPEN_SECONDS
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(str(folder / broker.SOCKET))
                with sock.makefile("rwb") as stream:
                    _tell(stream, name, known)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LocalFault(f"the broker of requests does not answer in {folder} ({error}); nothing is lost") from None
        start_broker(folder)
        time.sleep(_POLL_SECONDS)


def _tell(stream: BinaryIO | BufferedRWPair, name: str, known: Iterable[tuple[str, float, str]]) -> None:
    stream.write(f"l 1 {name}\n".encode())
    stream.flush()
    answer = stream.readline()
    if not answer:
        raise ConnectionResetError("it ended")
    if answer.startswith(b"f "):
        for key, expires, text in known:
            stream.write(f"s {key} {expires:.3f} {text}\n".encode())
        stream.write(f"p 1 {time.time() + _SEEDED_SECONDS:.3f} told\nl 2 {name}\n".encode())
        stream.flush()
        if not stream.readline():
            raise ConnectionResetError("it ended")


def start_broker(folder: Path) -> None:
    """Starts a broker in the background, unless there is one; it listens when this returns. Raises LocalFault."""
    command = [sys.executable, "-I", "-S", broker.__file__, str(folder)]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=_OPEN_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalFault(f"cannot start the broker of requests: {error}") from None


def runtime_folder() -> Path:
    """Where this user's broker listens: a folder of ours that nobody else may enter. Raises LocalFault."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "curate" if base else Path(tempfile.gettempdir()) / f"curate-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise LocalFault(f"cannot make {folder} ({error.strerror}): set XDG_RUNTIME_DIR to a folder that you own") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LocalFault(f"{folder} must be a folder that only you may enter: remove it, or set XDG_RUNTIME_DIR to one that you own")
    return folder
