"""One URL over HTTP: every hop judged, one deadline, retries by error class, waits that cost the URL nothing."""

from __future__ import annotations

import asyncio
import datetime
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from curate.errors import LocalFault
from curate.fetch.blocklist import load
from curate.fetch.breaker import Connections, spare_descriptors
from curate.fetch.buffer import ByteBudget, Room
from curate.fetch.consent import OptOut
from curate.fetch.exchange import Answer, Exchange, PageExchange, as_sent, host_as_sent
from curate.fetch.failures import MachineFault, ResolverSilent, check_local, resolver_reason, retryable
from curate.fetch.guard import Guard, check_url
from curate.fetch.link import Deferred, open_link
from curate.fetch.notes import Notes, Unreached
from curate.fetch.origins import Origins, Page
from curate.fetch.politeness import Budget, Politeness, Slot
from curate.fetch.proxy import may_be_asked_for
from curate.fetch.resolver import Resolver, literal
from curate.fetch.robots import MAX_REDIRECTS
from curate.fetch.settings import FetchSettings
from curate.fetch.transfer import Transfer, TransportSettings
from curate.fetch.transport import Transport

_ACCEPT = "image/jpeg, image/png, image/webp, image/gif, */*;q=0.1"
_BROKEN = frozenset({"connect_failed", "connect_timeout", "connection_reset", "truncated", "timeout_total", "too_slow"})


class _Clock:
    """Time one URL has left; stands still while it waits for its site's budget, the resolver's queue or this machine."""

    def __init__(self, seconds: float) -> None:
        self.left_seconds = seconds
        self.used_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.spend(time.monotonic() - started)

    def spend(self, seconds: float) -> None:
        self.left_seconds -= seconds
        self.used_seconds += seconds

    @contextmanager
    def given_back(self, error: type[Exception]) -> Iterator[None]:
        """Time that ends in this error was never spent."""
        left_seconds, used_seconds = self.left_seconds, self.used_seconds
        try:
            yield
        except error:
            self.left_seconds, self.used_seconds = left_seconds, used_seconds
            raise


@dataclass(frozen=True)
class RunFacts:
    """What a run tells its clients beside the settings: the day on which opt-outs are judged, and where notes go."""

    opt_out_date: datetime.date | None = None
    notes: Notes = field(default_factory=Notes)


class Client:
    """Fetches URLs on one event loop; made by `connect`."""

    def __init__(
        self,
        transport: Transport,
        settings: FetchSettings,
        politeness: Politeness,
        resolver: Resolver,
        connections: Connections,
        guard: Guard,
        run: RunFacts,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._politeness = politeness
        self._connections = connections
        self._guard = guard
        self.resolver = resolver
        self._lists = load(settings.blocklists)
        self._today = run.opt_out_date or settings.opt_out_date or datetime.datetime.now(datetime.UTC).date()
        self._origins = Origins(politeness.link, self._page, settings, run.notes)

    async def get(self, url: str) -> Answer:
        """The body at `url`, or the reason why not. Raises LocalFault when this machine is at fault."""
        left_seconds, requests, bytes_read, attempt = self._settings.total_seconds, 0, 0, 0
        before: Answer | None = None
        while True:
            attempt += 1
            clock = _Clock(left_seconds)
            answer = await self._attempt(url, clock)
            if before is not None and answer.reason == "deferred_politeness":
                answer = replace(before, bytes_read=0, attempts=0)  # what the site said is worth more than that it is busy
            requests, bytes_read, before = requests + answer.attempts, bytes_read + answer.bytes_read, answer
            delay_seconds = self._delay(answer, attempt)
            left_seconds = clock.left_seconds - delay_seconds
            if attempt == self._settings.attempts or left_seconds <= 0 or not retryable(answer.reason, answer.status):
                answer.attempts, answer.bytes_read, answer.latency_seconds = requests, bytes_read, clock.used_seconds
                return answer
            await asyncio.sleep(delay_seconds)

    def release(self, answer: Answer) -> None:
        """The body is no longer needed."""
        if answer.transfer is not None:
            self._transport.release(answer.transfer)

    def _delay(self, answer: Answer, attempt: int) -> float:
        """Full jitter (Brooker, "Exponential Backoff and Jitter", 2015), but not before Retry-After."""
        settings = self._settings
        jitter_seconds = random.uniform(0, min(settings.backoff_cap_seconds, settings.backoff_seconds * 2**attempt))
        return max(jitter_seconds, answer.retry_after_seconds)

    async def _attempt(self, url: str, clock: _Clock) -> Answer:
        """One request with its redirects; each hop is judged first."""
        target, answer = url, Answer()
        for _ in range(self._settings.max_redirects + 1):
            final_url = None if target == url else target[:2048]
            answer.final_url = final_url
            reason = self._refusal(target)
            if reason:
                return replace(answer, reason=reason)
            hit = self._lists.of_url(target)
            if hit:
                return replace(answer, reason="blocklisted", opt_out=OptOut(hit.signal, hit.value))
            try:
                verdict = await self._origins.judge(target)
                if verdict.reason:
                    return replace(answer, reason=verdict.reason, opt_out=verdict.opt_out)
                exchange = Exchange(target, self._settings, self._today, verdict.opt_out)
                await self._hop(exchange, clock, verdict.crawl_delay_seconds)
            except Deferred:
                return replace(answer, reason="deferred_politeness")
            except Unreached as error:
                return replace(answer, reason=error.reason, attempts=1)
            answer = exchange.answer
            answer.attempts, answer.final_url = 1, final_url
            if exchange.location is None or answer.reason:
                return answer
            target = exchange.location
        return replace(answer, reason="too_many_redirects")

    def _refusal(self, url: str) -> str | None:
        """Why a URL is not requested at all. With a proxy, the socket's address says nothing of the host, so its text has to."""
        reason = check_url(url, self._settings.max_url_characters)
        if reason:
            return reason
        host = host_as_sent(url)
        if host is None:
            return "bad_url"
        return "blocked_address" if self._settings.proxy is not None and not may_be_asked_for(host, self._guard) else None

    async def _page(self, url: str) -> Page:
        """One of a host's own files, with its redirects; asked for once, under the budgets of the sites it leads to."""
        clock, page = _Clock(self._settings.total_seconds), Page()
        for hops in range(MAX_REDIRECTS + 1):
            if self._refusal(url):
                break  # a redirect to nowhere: as if the file were not there
            exchange = PageExchange(url, self._settings, self._today)
            await self._hop(exchange, clock)
            self.release(exchange.answer)
            page = exchange.page(hops)
            if exchange.location is None:
                break
            url = exchange.location
        return page

    async def _hop(self, exchange: Exchange, clock: _Clock, crawl_delay_seconds: float = 0.0) -> None:
        """One request. Waits off the clock: for the name, for this machine, for the site's budget."""
        host = host_as_sent(exchange.url) or ""
        while True:
            reason = await self._resolve(host, clock)
            if reason:
                exchange.answer = Answer(reason=reason)
                return
            await self._connections.ready()
            begun = time.monotonic()
            try:
                async with self._politeness.slot(host, crawl_delay_seconds) as slot:
                    begun = time.monotonic()
                    with self._connections.request(), clock.given_back(MachineFault), clock.running():
                        await self._exchange(exchange, clock.left_seconds, slot)
                        fault = self._connections.broke(begun) if exchange.answer.reason in _BROKEN else None
                        if fault:
                            raise fault
            except MachineFault as fault:
                if not await self._connections.explain(fault, begun):
                    exchange.answer = Answer(reason="connect_failed")
                    return
                continue
            self._connections.ended(answered=exchange.answer.status is not None)
            return

    async def _resolve(self, host: str, clock: _Clock) -> str | None:
        """Has the name's addresses looked up before anything waits for its turn; the reason when it has none."""
        if self._settings.proxy is not None:
            return None
        try:
            clock.spend(await self.resolver.prepare(host))
        except OSError as error:
            clock.spend(error.seconds if isinstance(error, ResolverSilent) else 0.0)
            return resolver_reason(error)
        return None

    async def _exchange(self, exchange: Exchange, seconds: float, slot: Slot) -> None:
        address = as_sent(exchange.url)
        try:
            pins = await self._pins(address.raw_host or "", address.port)
        except OSError as error:
            exchange.answer = Answer(reason=resolver_reason(error))
            return
        announce = {"sent": slot.sent, "began": slot.began}
        transfer = Transfer(str(address), pins, seconds, exchange.judge, lambda what: announce[what](), exchange.may_be_cut)
        done = await self._transport.get(transfer)
        if done.error is not None and done.reason is not None:
            check_local(done.error)
        if done.reason == "connect_failed" and self._settings.proxy is not None:
            raise LocalFault("the proxy that fetch.proxy names cannot be reached; nothing is lost, run the same command again")
        exchange.finish(done)

    async def _pins(self, host: str, port: int | None) -> list[str]:
        """Where a name is, for libcurl, which looks nothing up itself."""
        if self._settings.proxy is not None or literal(host):
            return []
        addresses = [f"[{text}]" if ":" in text else text for _, text in await self.resolver.held(host)]
        return [f"+{host}:{port}:{','.join(addresses)}"]


@asynccontextmanager
async def connect(settings: FetchSettings, budget: ByteBudget, run: RunFacts) -> AsyncIterator[Client]:
    """A client on the running loop; the broker keeps every site's budget over all clients of this machine."""
    guard = Guard(settings.allow_addresses)
    link = await open_link()
    usual = Budget(settings.host_in_flight, settings.host_interval_seconds)
    politeness = Politeness(link, usual, Room(settings.in_flight, budget), settings.budgets(), settings.machines, settings.patience_seconds)
    descriptors = spare_descriptors(3 * settings.in_flight)
    connections = Connections(settings.in_flight, descriptors, settings.local_fault_seconds)
    resolver = Resolver(settings.resolvers, settings.resolve_seconds, settings.resolver_in_flight, settings.local_fault_seconds)
    kept = settings.in_flight if descriptors >= 3 * settings.in_flight else 0
    transport = Transport(
        _transport_settings(settings, kept), guard.open_socket if settings.proxy is None else guard.open_any_socket, budget
    )
    try:
        yield Client(transport, settings, politeness, resolver, connections, guard, run)
    finally:
        transport.close()
        await connections.close()
        await resolver.close()
        await link.close()


def _transport_settings(settings: FetchSettings, kept_connections: int) -> TransportSettings:
    return TransportSettings(
        settings.user_agent,
        _ACCEPT,
        settings.connect_seconds,
        settings.min_bytes_per_second,
        settings.floor_seconds,
        settings.max_header_bytes,
        settings.proxy,
        kept_connections,
    )
