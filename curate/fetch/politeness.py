"""How hard one site may be asked: a budget per registrable domain, or per address where the host is one."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

_PRUNE_AT = 16_384


@functools.cache
def _suffixes() -> Any:
    """Public suffix list as shipped with tldextract: no download, no cache folder."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@functools.lru_cache(maxsize=65536)
def site(host: str) -> str:
    """Whom a host belongs to: its registrable domain (public suffix list), or itself when it is an address."""
    host = host.rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        found = _suffixes()(host)
        return f"{found.domain}.{found.suffix}" if found.domain and found.suffix else host


@dataclass
class _Budget:
    slots: asyncio.Semaphore
    users: int = 0
    next_start: float = 0.0


class Politeness:
    """Limits one worker so that `workers` of them together keep the budget of every site.

    A worker takes a 1/`workers` share: its starts lie `interval_seconds` x `workers` apart, and at most
    `in_flight` / `workers` (one at least) of its requests are open at a site. `total` caps its requests over all sites;
    a request that waits for its site does not count against it, so one slow site never holds up the others.
    """

    def __init__(self, in_flight: int, interval_seconds: float, total: int, workers: int = 1) -> None:
        self._in_flight = max(1, in_flight // workers)
        self._interval_seconds = interval_seconds * workers
        self._total = asyncio.Semaphore(total)
        self._budgets: dict[str, _Budget] = {}

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Waits until a request to `host` may start; inside, it is counted as open."""
        key = site(host)
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._new_budget(key)
        budget.users += 1
        try:
            async with budget.slots:
                await self._start(budget)
                try:
                    yield
                finally:
                    self._total.release()
        finally:
            budget.users -= 1

    async def _start(self, budget: _Budget) -> None:
        while True:
            wait_seconds = budget.next_start - time.monotonic()
            if wait_seconds > 0:
                await asyncio.sleep(wait_seconds)
                continue
            await self._total.acquire()
            now = time.monotonic()
            if budget.next_start <= now:  # else another request started while this one waited for the worker
                budget.next_start = now + self._interval_seconds
                return
            self._total.release()

    def _new_budget(self, key: str) -> _Budget:
        if len(self._budgets) >= _PRUNE_AT:
            now = time.monotonic()
            self._budgets = {k: b for k, b in self._budgets.items() if b.users or b.next_start > now}
        return self._budgets.setdefault(key, _Budget(asyncio.Semaphore(self._in_flight)))
