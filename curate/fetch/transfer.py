"""One GET as the transport does it: what is asked, the head that came, what became of the body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Head:
    """Status and headers of an answer: values by name in lower case, bytes that are not ASCII as Latin-1; `lines` counts them."""

    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    lines: int = 0
    _latest: list[str] = field(default_factory=list)

    def add(self, line: str) -> bool:
        """Takes one header line, or the continuation of one (RFC 9112, 5.2); False when it is neither."""
        if line[0] in " \t":
            if not self._latest:
                return False
            self._latest[-1] = f"{self._latest[-1]} {line.strip()}".strip()
            return True
        name, colon, value = line.partition(":")
        self._latest = self.headers.setdefault(name.strip().lower(), [])
        self._latest.append(value.strip())
        self.lines += 1
        return bool(colon)

    def all(self, name: str) -> list[str]:
        """Values of all headers of that name."""
        return self.headers.get(name, [])

    def get(self, name: str) -> str | None:
        """Value of the first header of that name."""
        values = self.headers.get(name)
        return values[0] if values else None

    def words(self, name: str) -> set[str]:
        """What a header lists, over all its lines, in lower case."""
        return {word.strip().lower() for value in self.all(name) for word in value.split(",")} - {""}

    @property
    def length(self) -> int | None:
        """Announced bytes of the body. Raises ValueError for what is no number, several, or beside a transfer encoding."""
        found = self.words("content-length")
        if not found:
            return None
        (text,) = found
        if self.all("transfer-encoding") or not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ValueError("no length")
        return int(text)


@dataclass(frozen=True)
class TransportSettings:
    """What holds for all requests: user agent and `accept`, seconds to connect, rate floor, caps, proxy, descriptors kept."""

    user_agent: str
    accept: str
    connect_seconds: float
    min_bytes_per_second: float
    floor_seconds: float
    max_header_bytes: int
    proxy: str | None
    kept_connections: int


@dataclass(eq=False)
class Transfer:
    """One GET. `judge` sees the head and says how many bytes of the body to read at most (None: none).

    A longer body ends as `too_large`, or with `may_be_cut` comes up to the limit. `pins` say where the host is
    ("host:port:address,address", as CURLOPT_RESOLVE wants it). Afterwards: `head` (if one came), `body`, `size` read, `reason`
    (None when all that was wanted came), and `error` for what may be this machine's fault. The body is counted in the
    byte budget until `release`.
    """

    url: str
    pins: Sequence[str]
    seconds: float
    judge: Callable[[Head], int | None]
    announce: Callable[[str], None]  # told "sent" and "began"
    may_be_cut: bool = False
    head: Head | None = None
    body: bytes | None = None
    size: int = 0
    reason: str | None = None
    error: OSError | None = None
    held_bytes: int = 0
    future: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self._chunks: list[bytes] = []
        self._told_bytes: int | None = None
        self._most: int | None = None
        self._is_judged = self._is_blocked = False
        self._is_tunnelled = True
        self._is_sent = self._is_dialled = False
        self._is_stale = self._is_again = False  # the kept connection it was given is of no use; a new one has to be made
        self._wanted = 0  # size to which the body would grow by what libcurl holds back
        self._watched = (0.0, 0)  # since when, and from which size on, the rate of the body is being judged
        self._wire_bytes: int | None = None  # of its connection, at the first look at the body, without the body's own
        self._bug: Exception | None = None

    def forget(self) -> None:
        """Drops what leads back to whoever asked: a circle would keep the body until the garbage collector comes by."""
        self.future = None
        self.judge, self.announce = _judge_nothing, _announce_nothing


def _judge_nothing(head: Head) -> int | None:
    return None


def _announce_nothing(what: str) -> None:
    return None
