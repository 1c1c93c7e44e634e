"""What hosts say of themselves, asked once a day per machine: robots.txt, and the reservations in tdmrep.json.

An origin is a scheme, a host and a port. Its files are asked for by whoever needs them first; the broker hands them to
everybody else on the machine and keeps them until they expire. A part's worker notes what it asked for, for the pool.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from curate.fetch import robots, tdm
from curate.fetch.consent import OptOut
from curate.fetch.link import Link
from curate.fetch.notes import DAY_SECONDS, Note, Notes, Unreached
from curate.fetch.settings import FetchSettings

_REMEMBERED_ORIGINS = 16_384  # per worker and kind of file; others are asked of the broker again
_REMEMBERED_CHARACTERS = 2 << 20  # of rules; parsed they take some forty times as much
_UNREACHED = frozenset({"dns_not_found", "dns_timeout", "connect_failed", "connect_timeout", "tls_failed", "blocked_address"})
_ROBOTS_PATH = "/robots.txt"


@dataclass(frozen=True)
class Page:
    """What came back for one of a host's own files; `reason` where nothing whole did, `hops` redirects followed."""

    status: int | None = None
    body: bytes = b""
    encoding: str = ""
    reason: str | None = None
    hops: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether a URL may be asked for.

    With `reason`, it may not. `opt_out` is the signal behind the reason; without one, a reservation in the host's file,
    which holds unless the answer's own header says otherwise.
    """

    reason: str | None = None
    opt_out: OptOut | None = None
    crawl_delay_seconds: float = 0.0


@dataclass(frozen=True)
class _Robots:
    refused: Verdict | None
    rules: robots.Rules
    allowed: Verdict
    allows_tdm: bool = True

    @property
    def characters(self) -> int:
        """Size of the rules."""
        return sum(map(len, self.rules.lines))


class _Sized(Protocol):
    @property
    def characters(self) -> int: ...


Parsed = TypeVar("Parsed", bound=_Sized)
Read = Callable[[str], Awaitable[Page]]


class Origins:
    """Judges URLs by what their hosts say of themselves."""

    def __init__(self, link: Link, read: Read, settings: FetchSettings, notes: Notes) -> None:
        self._settings = settings
        self._nothing = Verdict()
        self._robots = _Shelf("robots", _ROBOTS_PATH, self._judged, link, read, notes, settings.robots_again_seconds)
        self._tdm = _Shelf("tdmrep", tdm.PATH, lambda note: tdm.parse(note.text or "[]"), link, read, notes, DAY_SECONDS)
        self._wants_tdm = settings.opt_out and settings.tdm_file

    async def judge(self, url: str) -> Verdict:
        """Whether `url` may be asked for. Raises Unreached when its host could not be connected to, Deferred."""
        if not self._settings.robots and not self._wants_tdm:
            return self._nothing
        origin = origin_of(url)
        verdict, asks_tdm = self._nothing, self._wants_tdm
        if self._settings.robots:
            known = self._robots.known(origin) or await self._robots.learn(origin)
            if known.refused:
                return known.refused
            if known.rules.lines:
                line = known.rules.refusal(url)
                if line is not None:
                    return Verdict("robots_disallowed", OptOut("robots.txt", line[:500]))
                asks_tdm = asks_tdm and known.allows_tdm
            verdict = known.allowed
        if asks_tdm:
            reservations = self._tdm.known(origin) or await self._tdm.learn(origin)
            if reservations.entries and (reserved := reservations.opt_out(url)):
                return Verdict(None, reserved, verdict.crawl_delay_seconds)
        return verdict

    @property
    def characters(self) -> int:
        """Size of all rules that this worker remembers."""
        return self._robots.characters + self._tdm.characters

    def _judged(self, note: Note) -> _Robots:
        """RFC 9309, 2.3.1: what is there is read, what is not there allows all, what cannot be had forbids all for now."""
        if note.text is None and (note.reason or note.status == 429 or (note.status or 0) >= 500):
            said = note.reason or f"status {note.status}"
            refused = Verdict("robots_unreachable", OptOut("robots.txt", said))
            return _Robots(refused, robots.parse("", ()), self._nothing)
        rules = robots.parse(note.text or "", self._settings.robot_names)
        allowed = Verdict(None, None, rules.crawl_delay_seconds) if rules.crawl_delay_seconds else self._nothing
        return _Robots(None, rules, allowed, rules.refusal(f"https://host{tdm.PATH}") is None)


Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin:
    """(scheme, host, port) of a well-formed http or https URL."""
    end = url.find("/", 8)
    return _split(url if end < 0 else url[:end])


@functools.lru_cache(maxsize=65536)
def _split(address: str) -> Origin:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _address(origin: Origin, path: str) -> str:
    scheme, host, port = origin
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}{'' if port == (443 if scheme == 'https' else 80) else f':{port}'}{path}"


class _Shelf(Generic[Parsed]):
    """One kind of file, parsed, by origin; each is looked up by one task however many rows wait for it."""

    def __init__(
        self, kind: str, path: str, parse: Callable[[Note], Parsed], link: Link, read: Read, notes: Notes, again_seconds: float
    ) -> None:
        self._kind, self._path, self._parse = kind, path, parse
        self._link, self._read, self._notes = link, read, notes
        self._again_seconds = min(again_seconds, DAY_SECONDS)
        self._known: dict[Origin, tuple[float, Parsed]] = {}
        self.characters = 0  # of all that is known
        self._tasks: dict[Origin, asyncio.Task[Parsed]] = {}

    def known(self, origin: Origin) -> Parsed | None:
        """What is known here and has not expired."""
        found = self._known.get(origin)
        return found[1] if found is not None and found[0] > time.time() else None

    async def learn(self, origin: Origin) -> Parsed:
        """What the host says, from the broker or from the host. Raises Unreached, Deferred."""
        task = self._tasks.get(origin)
        if task is None:
            task = self._tasks[origin] = asyncio.ensure_future(self._learn(origin))
            task.add_done_callback(lambda done: self._forget(origin, done))
        return await asyncio.shield(task)

    def _forget(self, origin: Origin, task: asyncio.Task[Parsed]) -> None:
        del self._tasks[origin]
        if not task.cancelled():
            task.exception()  # the rows that waited have it; if they are gone, nobody needs it

    async def _learn(self, origin: Origin) -> Parsed:
        note = await self._find(origin)
        large = len(note.text or "") > 1 << 16
        parsed = await asyncio.to_thread(self._parse, note) if large else self._parse(note)
        self._remember(origin, note.expires_at, parsed)
        return parsed

    def _remember(self, origin: Origin, expires_at: float, parsed: Parsed) -> None:
        """Forgets the oldest where it gets too much."""
        while self._known and (
            origin in self._known or len(self._known) >= _REMEMBERED_ORIGINS or self.characters + parsed.characters > _REMEMBERED_CHARACTERS
        ):
            gone = self._known.pop(origin) if origin in self._known else self._known.pop(next(iter(self._known)))
            self.characters -= gone[1].characters
        self._known[origin] = expires_at, parsed
        self.characters += parsed.characters

    async def _find(self, origin: Origin) -> Note:
        scheme, host, port = origin
        text, number = await self._link.look(f"{self._kind}:{scheme}://{host}:{port}")
        if text is not None:
            return Note.unpacked(text)
        try:
            note = self._noted(origin, await self._read(_address(origin, self._path)))
        except Unreached as error:
            self._link.publish(number, error.packed(), None)
            raise
        except BaseException:
            self._link.drop(number)
            raise
        self._link.publish(number, note.packed(), note.expires_at)
        self._notes.add(note)
        return note

    def _noted(self, origin: Origin, page: Page) -> Note:
        if page.reason in _UNREACHED and not page.hops:
            raise Unreached(page.reason)
        text = robots.text_of(page.body, page.encoding) if page.reason is None and page.status and 200 <= page.status < 300 else None
        reason = page.reason
        if text is None and reason is None and page.status and 200 <= page.status < 300:
            reason = "encoding_refused"
        now = time.time()
        failed = text is None and (reason is not None or page.status == 429 or (page.status or 0) >= 500)
        return Note(self._kind, *origin, now, now + (self._again_seconds if failed else DAY_SECONDS), page.status, reason, text)
