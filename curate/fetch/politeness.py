"""How hard one site may be asked: a budget per registrable domain, or per address where the host is one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from curate.fetch.buffer import Room
from curate.fetch.link import Link
from curate.media.url import site

_ARRIVAL_SECONDS = 0.2  # a request that was sent this long ago is taken to have reached its site


@dataclass(frozen=True)
class Budget:
    """What one site may be asked: requests open at once, and seconds between two starts."""

    in_flight: int
    interval_seconds: float
    fixed: bool = False  # agreed with the site: its Crawl-delay does not lengthen the interval


@dataclass
class Politeness:
    """The budgets of all sites, kept by the broker for every process of this user on this machine.

    `room` caps this worker's own requests over all sites; a request that waits for its site does not count against it,
    so one slow site never holds up the others. On each of `machines` machines starts lie `machines` times as far apart.
    A start that is more than `patience_seconds` away raises Deferred instead; negative patience waits for ever.
    """

    link: Link
    budget: Budget
    room: Room
    domains: Mapping[str, Budget] = field(default_factory=dict)
    machines: int = 1
    patience_seconds: float = -1.0

    def slot(self, host: str, crawl_delay_seconds: float = 0.0) -> Slot:
        """A context in which one request to `host` may be open; entering it waits for the site's budget."""
        key = site(host) or "-"
        budget = self.domains.get(key, self.budget)
        interval_seconds = budget.interval_seconds if budget.fixed else max(budget.interval_seconds, crawl_delay_seconds)
        return Slot(self, key, budget.in_flight, interval_seconds * self.machines)


class Slot:
    """One request's place at its site. Raises Deferred when entered, where the site is over budget.

    The gap to the next start counts from `began`, else from a moment after `sent`, else from the end of the request:
    what was granted at a distance must not come closer on the way.
    """

    __slots__ = ("_gap_seconds", "_in_flight", "_link", "_number", "_politeness", "_site", "_told")

    def __init__(self, politeness: Politeness, site: str, in_flight: int, gap_seconds: float) -> None:
        self._politeness, self._link = politeness, politeness.link
        self._site, self._in_flight, self._gap_seconds = site, in_flight, gap_seconds
        self._told: asyncio.TimerHandle | bool = not gap_seconds  # without a gap the broker need not know

    async def __aenter__(self) -> Slot:
        self._number = await self._link.start(self._site, self._in_flight, self._gap_seconds, self._politeness.patience_seconds)
        try:
            await self._politeness.room.acquire()
        except BaseException:
            self._link.over(self._number)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(self._told, asyncio.TimerHandle):
            self._told.cancel()
        self._told = True
        self._politeness.room.release()
        self._link.over(self._number)

    def sent(self) -> None:
        """The request is on its way."""
        if self._told is False:
            self._told = asyncio.get_running_loop().call_later(_ARRIVAL_SECONDS, self.began)

    def began(self) -> None:
        """The answer has begun: the site has the request."""
        if self._told is True:
            return
        if self._told:
            self._told.cancel()
        self._told = True
        self._link.began(self._number)
