"""One URL over HTTP: every hop guarded, one deadline, capped bytes, retries by error class; the only user of aiohttp.

No proxies, cookies, credentials or referer are ever sent, and nothing is asked for that would need decompressing.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from curate.fetch.blocklist import load
from curate.fetch.buffer import UNTOLD_BYTES, ByteBudget, Lease
from curate.fetch.consent import OptOut, find_opt_out, parse_date
from curate.fetch.failures import ResolverSilent, check_local, resolver_reason, retryable, status_reason
from curate.fetch.guard import BlockedAddress, Guard, check_url
from curate.fetch.link import Deferred, open_link
from curate.fetch.notes import Notes, Unreached
from curate.fetch.origins import Origins, Page, origin_of
from curate.fetch.politeness import Budget, Politeness, Slot
from curate.fetch.robots import LARGEST_BYTES, MAX_REDIRECTS
from curate.fetch.settings import FetchSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPALIVE_SECONDS = 2.0  # idle sockets cost descriptors: 300 rows/s for 2 s stay below the usual limit of 1024
_READ_BYTES = 256 << 10
_ACCEPT = "image/jpeg, image/png, image/webp, image/gif, */*;q=0.1"


@dataclass(frozen=True)
class Answer:
    """What became of one URL; `body` is set exactly when `reason` is None.

    `attempts` counts requests without redirects, `latency_seconds` is the last attempt's, `bytes_read` sums all
    attempts. `lease` holds the body's share of the worker's byte budget until whoever uses it calls `close()`.
    """

    reason: str | None = None
    status: int | None = None
    final_url: str | None = None
    content_type: str | None = None
    opt_out: OptOut | None = None
    body: bytes | None = None
    attempts: int = 0
    latency_seconds: float = 0.0
    bytes_read: int = 0
    retry_after_seconds: float = 0.0
    lease: Lease | None = None


class _Clock:
    """Time one URL has left; stands still while the URL waits for its site's budget."""

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


class Client:
    """Fetches URLs on one event loop; made by `connect`."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: FetchSettings, politeness: Politeness, budget: ByteBudget, run: RunFacts
    ) -> None:
        self._session = session
        self._settings = settings
        self._politeness = politeness
        self._budget = budget
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
                return replace(answer, attempts=requests, bytes_read=bytes_read, latency_seconds=clock.used_seconds)
            await asyncio.sleep(delay_seconds)

    def _delay(self, answer: Answer, attempt: int) -> float:
        """Full jitter (Brooker, "Exponential Backoff and Jitter", 2015), but not before Retry-After."""
        settings = self._settings
        jitter_seconds = random.uniform(0, min(settings.backoff_cap_seconds, settings.backoff_seconds * 2**attempt))
        return max(jitter_seconds, answer.retry_after_seconds)

    async def _attempt(self, url: str, clock: _Clock) -> Answer:
        """One request with its redirects; each hop is judged, and waits for its own site's budget, off the clock."""
        target, answer = url, Answer()
        for _ in range(self._settings.max_redirects + 1):
            final_url = None if target == url else target[:2048]
            reason = check_url(target, self._settings.max_url_characters)
            if reason:
                return replace(answer, reason=reason, final_url=final_url)
            hit = self._lists.of_url(target)
            if hit:
                return replace(answer, reason="blocklisted", opt_out=OptOut(hit.signal, hit.value), final_url=final_url)
            try:
                verdict = await self._origins.judge(target)
                if verdict.reason:
                    return replace(answer, reason=verdict.reason, opt_out=verdict.opt_out, final_url=final_url)
                async with self._politeness.slot(origin_of(target)[1], verdict.crawl_delay_seconds) as slot:
                    with clock.running():
                        exchange = _Exchange(self, target, slot, verdict.opt_out)
                        location = await exchange.run(clock.left_seconds)
            except Deferred:
                return replace(answer, reason="deferred_politeness", final_url=final_url)
            except Unreached as error:
                return replace(answer, reason=error.reason, attempts=1, final_url=final_url)
            answer = replace(exchange.answer, attempts=1, final_url=final_url)
            if location is None:
                return answer
            target = location
        return replace(answer, reason="too_many_redirects")

    async def _page(self, url: str) -> Page:
        """One of a host's own files, with its redirects; asked for once, under the budgets of the sites it leads to."""
        clock, page = _Clock(self._settings.total_seconds), Page()
        for hops in range(MAX_REDIRECTS + 1):
            if check_url(url, self._settings.max_url_characters):
                break  # a redirect to nowhere: as if the file were not there
            async with self._politeness.slot(origin_of(url)[1]) as slot:
                with clock.running():
                    exchange = _PageExchange(self, url, slot)
                    location = await exchange.run(clock.left_seconds)
            page = exchange.page(hops)
            if location is None:
                break
            url = location
        return page


class _Exchange:
    """One request and its response; `answer` holds what is known so far, also when it breaks off."""

    def __init__(self, client: Client, url: str, slot: Slot, reserved: OptOut | None = None) -> None:
        self._client = client
        self._settings = client._settings
        self._url = url
        self._slot = slot
        self._reserved = reserved
        self._encoding = ""
        self.answer = Answer()

    async def run(self, seconds: float) -> str | None:
        """Fills `answer`; returns the address to go to next when it is a redirect."""
        lease = Lease(self._client._budget)
        try:
            async with asyncio.timeout(seconds):
                location = await self._request(lease)
            return location
        except aiohttp.ConnectionTimeoutError:
            self._end("connect_timeout")
        except TimeoutError:
            self._end("timeout_total")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._end(_network_reason(error))
        finally:
            if self.answer.body is None:
                lease.close()
        return None

    def _end(self, reason: str) -> None:
        self.answer = replace(self.answer, reason=reason, body=None)

    async def _request(self, lease: Lease) -> str | None:
        async with self._client._session.get(_as_sent(self._url), allow_redirects=False, trace_request_ctx=self._slot) as response:
            self._slot.began()
            location = self._read_headers(response)
            if location is None and self.answer.reason is None:
                await self._read_body(response, lease)
            if not response.content.at_eof():
                response.close()  # never drain what we did not ask for
            return location

    def _read_headers(self, response: aiohttp.ClientResponse) -> str | None:
        """Judges status and headers; sets `answer.reason` when the body is not to be read."""
        status = response.status
        found = self._opt_out(response)
        self.answer = Answer(status=status, content_type=_header_text(response, "Content-Type"), opt_out=found)
        location = response.headers.get("Location") if status in _REDIRECTS else None
        reason = status_reason(status) if location is None else None
        if found and (reason is None or retryable(reason, status)):
            self._end("opt_out")
            return None
        if location is not None:
            return _joined(self._url, location)
        self.answer = replace(self.answer, reason=reason or self._body_reason(response), retry_after_seconds=_retry_after(response))
        return None

    def _opt_out(self, response: aiohttp.ClientResponse) -> OptOut | None:
        if not self._settings.opt_out:
            return None
        tags, reservations = response.headers.getall("X-Robots-Tag", []), response.headers.getall("TDM-Reservation", [])
        if not tags and not reservations:
            return self._reserved
        robots, directives = self._settings.robot_names, self._settings.opt_out_directives
        return find_opt_out(tags, reservations, directives, robots, self._client._today, self._reserved)

    def _body_reason(self, response: aiohttp.ClientResponse) -> str | None:
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            return "encoding_refused"
        if response.content_length is not None and response.content_length > self._settings.max_bytes:
            return "too_large"
        return None

    async def _read_body(self, response: aiohttp.ClientResponse, lease: Lease) -> None:
        largest = self._settings.max_bytes
        await lease.take(min(largest, UNTOLD_BYTES) if response.content_length is None else response.content_length)
        chunks, size = [], 0
        try:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > largest:
                    return self._end("too_large")
                if size > lease.size:
                    await lease.grow(largest)
                chunks.append(chunk)
        finally:
            self.answer = replace(self.answer, bytes_read=size)
        if not size:
            return self._end("empty_body")
        self.answer = replace(self.answer, body=b"".join(chunks), lease=lease)


class _PageExchange(_Exchange):
    """A request for one of a host's own files: opt-out headers are not about it, and its rest is left where it is long."""

    def page(self, hops: int) -> Page:
        """What came back."""
        answer = self.answer
        if answer.lease:
            answer.lease.close()
        return Page(answer.status, answer.body or b"", self._encoding, answer.reason, hops)

    def _read_headers(self, response: aiohttp.ClientResponse) -> str | None:
        self._encoding = response.headers.get("Content-Encoding", "").strip().lower()
        self.answer = Answer(status=response.status)
        location = response.headers.get("Location") if response.status in _REDIRECTS else None
        return None if location is None else _joined(self._url, location)

    async def _read_body(self, response: aiohttp.ClientResponse, lease: Lease) -> None:
        if not 200 <= response.status < 300:
            return
        await lease.take(LARGEST_BYTES)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > LARGEST_BYTES:
                break
        self.answer = replace(self.answer, body=bytes(body), lease=lease)


def _as_sent(url: str) -> URL:
    """As written where it is ASCII: re-quoting could break signed addresses."""
    return URL(url, encoded=True) if url.isascii() else URL(url)


def _joined(base: str, location: str) -> str:
    """Absolute redirect target without fragment; header bytes that are not ASCII count as UTF-8, spaces are quoted."""
    text = location.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
    target = URL(text, encoded=True) if text.isascii() and " " not in text else URL(text)
    return str(_as_sent(base).join(target).with_fragment(None))


def _header_text(response: aiohttp.ClientResponse, name: str) -> str | None:
    """A header as storable text of at most 200 characters, None when it is not there."""
    value = response.headers.get(name)
    return None if value is None else "".join(c for c in value if c.isprintable())[:200]


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds asked for by Retry-After (RFC 9110, 10.2.3: seconds or a date); 0 without or when unreadable."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    moment = parse_date(value) if value else None
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds()) if moment else 0.0


def _network_reason(error: Exception) -> str:
    """Reason of what the HTTP client raised. Raises LocalFault for faults of this machine."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    check_local(cause)
    if isinstance(cause, BlockedAddress):
        return "blocked_address"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return resolver_reason(cause)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "tls_failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect_failed"
    return _exchange_reason(error)


def _exchange_reason(error: Exception) -> str:
    """What broke after the connection stood."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "connection_reset" if "ConnectionResetError" in str(error) else "truncated"  # aiohttp tells it only in the text
    if isinstance(error, aiohttp.InvalidURL):
        return "bad_url"
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return "connection_reset"
    return "bad_response" if isinstance(error, aiohttp.ClientError) else "bad_url"


class _Resolver(AbstractResolver):
    """getaddrinfo in threads, with a limit of time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        except TimeoutError:
            raise ResolverSilent(f"no answer within {self._seconds} s") from None

    async def close(self) -> None:
        await self._inner.close()


async def _tell_slot(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    slot: Slot = context.trace_request_ctx
    slot.sent()


@dataclass(frozen=True)
class RunFacts:
    """What a run tells its clients beside the settings: the day on which opt-outs are judged, and where notes go."""

    opt_out_date: datetime.date | None = None
    notes: Notes = field(default_factory=Notes)


@asynccontextmanager
async def connect(settings: FetchSettings, budget: ByteBudget, run: RunFacts) -> AsyncIterator[Client]:
    """A client on the running loop; the broker keeps every site's budget over all clients of this machine."""
    guard = Guard(settings.allow_addresses)
    threads = ThreadPoolExecutor(settings.resolver_threads, thread_name_prefix="resolve")
    asyncio.get_running_loop().set_default_executor(threads)
    link = await open_link()
    usual = Budget(settings.host_in_flight, settings.host_interval_seconds)
    politeness = Politeness(link, usual, settings.in_flight, settings.budgets(), settings.machines, settings.patience_seconds)
    sent = aiohttp.TraceConfig()
    sent.on_request_headers_sent.append(_tell_slot)
    connector = aiohttp.TCPConnector(
        limit=0,
        ttl_dns_cache=300,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        resolver=_Resolver(settings.resolve_seconds),
        socket_factory=guard.open_socket,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": settings.user_agent, "Accept": _ACCEPT, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_seconds),
        auto_decompress=False,
        trace_configs=[sent],
        trust_env=False,
        read_bufsize=_READ_BYTES,
        max_line_size=settings.max_header_bytes,
        max_field_size=settings.max_header_bytes,
    )
    session._retry_connection = False  # attempts are counted and spaced here, not repeated below
    try:
        async with session:
            yield Client(session, settings, politeness, budget, run)
    finally:
        await link.close()
