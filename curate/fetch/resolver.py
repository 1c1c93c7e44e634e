"""Host names become addresses: one question per name and TTL, few at a time, and a dead resolver fails no name.

The only user of aiodns (c-ares). A name's addresses are asked for one family first, the one this machine has a way out
for (IPv4 when both), and for the other only when there are none: half the questions of asking for both. What the
addresses lead to is judged by `curate.fetch.guard` when connecting, so nothing here matters for safety.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiodns
import pycares
from aiodns import error as dns_errors

from curate.errors import LocalFault
from curate.fetch.breaker import Outage, routed_families
from curate.fetch.failures import ResolverSilent

Address = tuple[int, str]  # family, address as text
_TTL_SECONDS = (60.0, 3600.0)
_UNKEPT_SECONDS = 1.0  # TTL 0 asks not to keep an answer: it serves those that wait for it at this moment
_NO_NAME_SECONDS = 300.0  # RFC 2308, 5: at most three hours; the resolver's own cache knows better
_STALE_SECONDS = 600.0  # RFC 8767: a request that waited for its turn goes on with the answer it was queued with
_NAMES = 65_536
_TRIES = 4  # each waits twice as long as the one before
_NO_DATA = frozenset({dns_errors.ARES_ENODATA})
_UNASKED = frozenset({dns_errors.ARES_EBADNAME, dns_errors.ARES_EBADQUERY})  # c-ares says so itself: no resolver was asked
_NO_NAME = _UNASKED | {dns_errors.ARES_ENOTFOUND}
_REPLIES = _NO_DATA | _NO_NAME | {dns_errors.ARES_ESERVFAIL, dns_errors.ARES_EREFUSED, dns_errors.ARES_EFORMERR, dns_errors.ARES_ENOTIMP}


class _Refused(ResolverSilent):
    """The resolver answered that it cannot say (SERVFAIL, REFUSED)."""


@dataclass(frozen=True)
class _Known:
    """What is known of a name: its addresses (none: it has none), until when, and what it cost to find out."""

    addresses: tuple[Address, ...]
    until: float
    query_seconds: float = 0.0


@dataclass
class ResolverStatistics:
    """Counts since the start: `lookups` asked of this resolver, `hits` answered from its cache, `queries` sent."""

    lookups: int = 0
    hits: int = 0
    queries: int = 0
    silent: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    @property
    def median_seconds(self) -> float:
        """Of the last 4,096 answered queries; 0 without any."""
        return statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def p95_seconds(self) -> float:
        """95th percentile of the same."""
        return sorted(self.seconds)[int(0.95 * (len(self.seconds) - 1))] if self.seconds else 0.0


class Resolver:
    """A cache in front of a recursive resolver; belongs to one event loop.

    `servers` are addresses with or without port (default: those of this machine); `seconds` bounds one lookup,
    `in_flight` how many are under way. When none is answered for `give_up_seconds`, lookups raise LocalFault.
    """

    def __init__(self, servers: Sequence[str] = (), seconds: float = 5.0, in_flight: int = 96, give_up_seconds: float = 300.0) -> None:
        self._servers = tuple(servers)
        self._seconds = seconds
        self._channel = self._open_channel(_TRIES)
        self._families = _in_order_of_use(routed_families())
        self._slots = asyncio.Semaphore(in_flight)
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[_Known]] = {}
        self._answered_name = ""
        self.outage = Outage(f"the resolver ({', '.join(self.servers)}) does not answer", give_up_seconds, self._probe)
        self.statistics = ResolverStatistics()

    @property
    def servers(self) -> list[str]:
        """Addresses of the resolvers that are asked."""
        return list(self._servers or self._channel.nameservers)

    async def lookup(self, host: str, port: int = 0) -> list[Address]:
        """Addresses of a name, preferred ones first.

        Raises gaierror (EAI_NONAME) when it has none, ResolverSilent when nobody could say, LocalFault when the
        resolver is gone. `port` plays no part; it is here because callers know names with ports.
        """
        found = literal(host)
        return [found] if found else list(_given(await self._find(_folded(host))))

    async def prepare(self, host: str) -> float:
        """Makes sure that `held` knows the name; returns the seconds its query took, 0 when none was needed. Raises as `lookup`."""
        if literal(host):
            return 0.0
        was_known = self._fresh(_folded(host)) is not None
        known = await self._find(_folded(host))
        _given(known)
        return 0.0 if was_known else known.query_seconds

    async def held(self, host: str, port: int = 0) -> list[Address]:
        """As `lookup`, but content with an answer that ran out while the request waited for its turn."""
        known = self._known.get(_folded(host))
        if known and known.addresses and known.until + _STALE_SECONDS > time.monotonic():
            return list(known.addresses)
        return await self.lookup(host, port)

    async def _find(self, name: str) -> _Known:
        self.statistics.lookups += 1
        known = self._fresh(name)
        if known:
            self.statistics.hits += 1
            return known
        if name not in self._asking:
            task = asyncio.ensure_future(self._settle(name))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._settled(name, done))
        return await asyncio.shield(self._asking[name])

    def _fresh(self, name: str) -> _Known | None:
        known = self._known.get(name)
        return known if known and known.until > time.monotonic() else None

    def _settled(self, name: str, task: asyncio.Task[_Known]) -> None:
        self._asking.pop(name, None)
        if task.cancelled() or task.exception():  # taken here too: whoever asked may be gone
            return
        self._known.pop(name, None)  # to the end: the oldest go first
        self._known[name] = task.result()
        while len(self._known) > _NAMES:
            del self._known[next(iter(self._known))]

    async def _settle(self, name: str) -> _Known:
        """Asks until there is an answer, or until silence can only be the name's: others were answered meanwhile."""
        asked_again = False  # one silence while nobody else asked proves nothing, even when the resolver answers right after it
        async with self._slots:
            while True:
                await self.outage.ready()
                begun = time.monotonic()
                try:
                    return await self._ask(name, begun)
                except ResolverSilent as error:
                    silence = error
                    silence.seconds = time.monotonic() - begun
                lonely = not self.outage.succeeded_lately(begun)
                if not await self.outage.explains(begun):
                    if asked_again or not lonely:
                        raise silence
                    asked_again = True

    async def _ask(self, name: str, begun: float) -> _Known:
        """One family after the other. Raises ResolverSilent for silence, or when one was refused and the other has nothing."""
        refusal: _Refused | None = None
        for family in self._families:
            try:
                addresses, ttl = await self._query(name, family)
            except _Refused as error:
                refusal = error
                continue
            if addresses is None or addresses:
                seconds = time.monotonic() - begun
                return _Known(tuple(addresses or ()), time.monotonic() + ttl, seconds)
        if refusal:
            raise refusal
        return _Known((), time.monotonic() + _NO_NAME_SECONDS, time.monotonic() - begun)

    async def _query(self, name: str, family: int) -> tuple[list[Address] | None, float]:
        """(addresses, seconds to keep them); no list at all when the name does not exist."""
        begun = time.monotonic()
        self.statistics.queries += 1
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._channel.getaddrinfo(name, family=socket.AddressFamily(family))
        except TimeoutError:
            self.statistics.silent += 1
            raise ResolverSilent(f"no answer within {self._seconds} s") from None
        except UnicodeError:  # no name that could be asked for (IDNA)
            return None, _NO_NAME_SECONDS
        except dns_errors.DNSError as error:
            self._note(name, begun, error)
            if error.args[0] in _NO_NAME:
                return None, _NO_NAME_SECONDS
            if error.args[0] in _NO_DATA:
                return [], _NO_NAME_SECONDS
            raise (_Refused if error.args[0] in _REPLIES else ResolverSilent)(str(error.args[1])) from None
        self._note(name, begun)
        addresses = [(int(node.family), _text(node.addr[0])) for node in found.nodes]
        return list(dict.fromkeys(addresses)), _kept_seconds(min((node.ttl for node in found.nodes), default=0))

    def _note(self, name: str, begun: float, error: dns_errors.DNSError | None = None) -> None:
        if error is not None and error.args[0] not in _REPLIES:
            self.statistics.silent += 1
            return
        if error is not None and error.args[0] in _UNASKED:
            return
        self.statistics.seconds.append(time.monotonic() - begun)
        self.outage.succeeded()
        if error is None:
            self._answered_name = name

    async def _probe(self) -> bool:
        """Whether the resolver says anything, asked past every cache: about the name it answered last, or the root."""
        try:
            channel = self._open_channel(1)
        except LocalFault:
            return False
        question = (
            channel.getaddrinfo(self._answered_name, family=socket.AddressFamily(self._families[0]))
            if self._answered_name
            else channel.query_dns(".", "NS")
        )
        try:
            async with asyncio.timeout(min(1.0, self._seconds)):
                await question
            return True
        except TimeoutError:
            return False
        except dns_errors.DNSError as error:
            return error.args[0] in _REPLIES
        finally:
            await channel.close()

    def _open_channel(self, tries: int) -> aiodns.DNSResolver:
        """Its first try waits so long that all of them together take `seconds`. Names are whole: no search domains."""
        first_seconds = self._seconds / (2**tries - 1)
        try:
            return aiodns.DNSResolver(self._servers or None, timeout=first_seconds, tries=tries, flags=pycares.ARES_FLAG_NOSEARCH)
        except pycares.AresError as error:
            raise LocalFault(f"cannot ask for names: {error}; raise the limit of descriptors (ulimit -n) and run it again") from error

    async def close(self) -> None:
        """Ends what is under way."""
        await self.outage.close()
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._channel.close()
        await asyncio.sleep(0)  # c-ares hands its cancelled queries to the loop


def _given(known: _Known) -> tuple[Address, ...]:
    if not known.addresses:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return known.addresses


def _folded(host: str) -> str:
    return host.rstrip(".").lower()


@functools.lru_cache(maxsize=65536)
def literal(host: str) -> Address | None:
    """The address that a host is, in any spelling that the C library takes (127.1, 0x7f.1, 2130706433); None for names.

    Raises gaierror for what ends like an address and is none: no top-level domain is a number (WHATWG URL, 3.5).
    """
    text = host.strip("[]").rstrip(".")
    last = text.rpartition(".")[2].lower()
    if ":" not in text and not last.isdigit() and not last.startswith("0x"):
        return None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        return (socket.AF_INET if address.version == 4 else socket.AF_INET6), text
    try:
        return socket.AF_INET, socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        raise socket.gaierror(socket.EAI_NONAME, "no such address") from None


def _in_order_of_use(routed: frozenset[int]) -> tuple[int, int]:
    only_six = routed == {socket.AF_INET6}
    return (socket.AF_INET6, socket.AF_INET) if only_six else (socket.AF_INET, socket.AF_INET6)


def _kept_seconds(ttl: int) -> float:
    shortest, longest = _TTL_SECONDS
    return min(max(float(ttl), shortest), longest) if ttl > 0 else _UNKEPT_SECONDS


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address
