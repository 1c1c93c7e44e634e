"""The fetch stage: URLs in, image bytes and their description out, with network and codec running side by side.

One event loop in a thread keeps many requests under way across batches; codec threads decode and encode meanwhile;
batches leave in the order in which they came. What waits is bounded: bodies by a byte budget, finished images by
`buffer_bytes`, rows under way by `lookahead_rows`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from curate.fetch.buffer import ByteBudget
from curate.fetch.client import Answer, Client, connect
from curate.fetch.codec import outcome, prepare_process
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import WISH, Wish, wishes_of
from curate.media.url import redacted
from curate.schema import table
from curate.stage import Compute, Resources, identity_of

RESULT_COLUMNS = (
    "reason", "http_status", "final_url", "content_type", "signal", "signal_value", "original_bytes", "original_width",
    "original_height", "original_format", "sha256", "md5", "hash_drift", "blurred", "exif", "width", "height", "format",
    "image_bytes", "image_sha256",
)  # fmt: skip
TELEMETRY_COLUMNS = ("finished_at", "attempts", "latency_seconds", "bytes_read", "worker")


@dataclass
class Result:
    """One row's outcome: columns by name (absent ones are null), and the bytes to store."""

    columns: dict[str, object] = field(default_factory=dict)
    image: bytes | None = None


@dataclass(frozen=True)
class FetchStage:
    """Needs `url`, `skip` (the reason for which a row is not to be requested, else null) and `wish` (see `Wish`).

    Adds the columns of `fetched` that describe the image, telemetry, and `image`, the bytes to store (null with a
    reason). `workers` is how many of these stages run at once, for the budgets of sites.
    """

    settings: FetchSettings = field(default_factory=FetchSettings)
    workers: int = 1
    version: int = 2

    @property
    def resources(self) -> Resources:
        """One core, and memory for bodies, images and look-ahead."""
        return Resources(cpus=1, memory_bytes=512 << 20)

    @property
    def needs(self) -> pa.Schema:
        """`url` and `skip`, both string, and `wish`."""
        return pa.schema([("url", pa.string()), ("skip", pa.string()), ("wish", WISH)])

    @property
    def adds(self) -> pa.Schema:
        """Result columns, telemetry columns, `image`."""
        fetched, telemetry = table("fetched"), table("telemetry")
        plain = [pa.field(name, fetched.field(name).type) for name in RESULT_COLUMNS]
        plain += [pa.field(name, telemetry.field(name).type) for name in TELEMETRY_COLUMNS]
        return pa.schema([*plain, pa.field("image", pa.binary())])

    def identity(self) -> str:
        """Fingerprint of what shapes outcomes; deadlines, manners and thread counts do not."""
        return identity_of("fetch", self.version, self.settings.identity())

    @contextmanager
    def open(self) -> Iterator[Compute]:
        """Starts the event loop and the codec threads; stops both at the end, whatever is under way."""
        engine = _Engine(self.settings, self.workers)
        try:
            yield lambda batches: _in_order(engine, batches, self.settings, self.adds)
        finally:
            engine.close()


def _in_order(engine: _Engine, batches: Iterator[pa.RecordBatch], settings: FetchSettings, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Submits batches ahead and yields their results in order."""
    waiting: deque[_Ticket] = deque()
    rows = 0
    try:
        for batch in batches:
            waiting.append(engine.submit(batch))
            rows += batch.num_rows
            while rows >= settings.lookahead_rows or (waiting and waiting[0].future.done()):
                ticket = waiting.popleft()
                rows -= ticket.rows
                yield _as_batch(engine.collect(ticket), schema)
        while waiting:
            yield _as_batch(engine.collect(waiting.popleft()), schema)
    finally:
        for ticket in waiting:
            ticket.future.cancel()


def _as_batch(results: list[Result], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([result.columns.get(f.name) for result in results], f.type) for f in schema if f.name != "image"]
    return pa.RecordBatch.from_arrays([*arrays, pa.array([result.image for result in results], pa.binary())], schema=schema)


@dataclass
class _Ticket:
    number: int
    rows: int
    future: concurrent.futures.Future[list[Result]]


class _Engine:
    """An event loop in a thread, with its client and codec threads."""

    def __init__(self, settings: FetchSettings, workers: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._codec = ThreadPoolExecutor(settings.codec_threads, "codec", initializer=prepare_process)
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._settings = settings
        self._submitted = 0
        self._thread.start()
        self._closing = asyncio.run_coroutine_threadsafe(self._start(workers), self._loop).result()

    async def _start(self, workers: int) -> asyncio.Event:
        """Opens the client in a task of its own, so that the task that opened it also closes it."""
        ready, closing = asyncio.Event(), asyncio.Event()
        self._session = asyncio.ensure_future(self._serve(workers, ready, closing))
        starting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({self._session, starting}, return_when=asyncio.FIRST_COMPLETED)
        if self._session.done():
            self._session.result()
        return closing

    async def _serve(self, workers: int, ready: asyncio.Event, closing: asyncio.Event) -> None:
        budget = ByteBudget(self._settings.buffer_bytes, self._settings.max_bytes)
        async with connect(self._settings, budget, workers) as client:
            self._fetcher = _Fetcher(client, self._codec, self._settings)
            ready.set()
            await closing.wait()

    def submit(self, batch: pa.RecordBatch) -> _Ticket:
        """Starts a batch."""
        urls, skips = batch.column("url").to_pylist(), batch.column("skip").to_pylist()
        number, self._submitted = self._submitted, self._submitted + 1
        future = asyncio.run_coroutine_threadsafe(self._fetcher.batch(number, urls, skips, wishes_of(batch)), self._loop)
        return _Ticket(number, batch.num_rows, future)

    def collect(self, ticket: _Ticket) -> list[Result]:
        """Waits for the oldest batch; it goes first until it is done. Raises what went wrong in it."""
        self._loop.call_soon_threadsafe(self._fetcher.favour, ticket.number)
        results = ticket.future.result()
        self._loop.call_soon_threadsafe(self._fetcher.collected, sum(len(r.image) for r in results if r.image))
        return results

    def close(self) -> None:
        """Cancels what is under way and ends threads and connections."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._codec.shutdown(wait=True, cancel_futures=True)

    async def _stop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task(), self._session}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._closing.set()
        await self._session


class _Fetcher:
    """Rows on the event loop: request, then codec."""

    def __init__(self, client: Client, codec: ThreadPoolExecutor, settings: FetchSettings) -> None:
        self._client = client
        self._codec = codec
        self._settings = settings
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._favoured = 0
        self._held_bytes = 0
        self._room = asyncio.Condition()

    async def batch(self, number: int, urls: list[str], skips: list[str | None], wishes: list[Wish]) -> list[Result]:
        """Outcomes of one batch, in order; raises the first exception."""
        rows = zip(urls, skips, wishes, strict=True)
        return await asyncio.gather(*(self._row(number, url, skip, wish) for url, skip, wish in rows))

    def favour(self, number: int) -> None:
        """Lets batches up to `number` start whatever is held: somebody waits for them."""
        self._favoured = max(self._favoured, number)
        self._wake()

    def collected(self, size: int) -> None:
        """Bytes of finished images that left."""
        self._held_bytes -= size
        self._wake()

    def _wake(self) -> None:
        self._wakers = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._room:
            self._room.notify_all()

    def _may_start(self, number: int) -> bool:
        return number <= self._favoured or self._held_bytes < self._settings.buffer_bytes

    async def _row(self, number: int, url: str, skip: str | None, wish: Wish) -> Result:
        if skip is not None:
            return Result({"reason": skip})
        if not self._may_start(number):
            async with self._room:
                await self._room.wait_for(lambda: self._may_start(number))
        answer = await self._client.get(url)
        result = self._described(answer)
        if answer.body is not None:
            try:
                work = asyncio.get_running_loop().run_in_executor(self._codec, outcome, answer.body, wish, self._settings)
                columns, result.image = await work
                result.columns.update(columns)
            finally:
                if answer.lease:
                    answer.lease.close()
            self._held_bytes += len(result.image or b"")
        return result

    def _described(self, answer: Answer) -> Result:
        columns: dict[str, object] = {
            "reason": answer.reason,
            "http_status": answer.status,
            "final_url": redacted(answer.final_url) if answer.final_url else None,
            "content_type": answer.content_type,
            "finished_at": datetime.datetime.now(datetime.UTC),
            "attempts": answer.attempts,
            "latency_seconds": answer.latency_seconds,
            "bytes_read": answer.bytes_read,
            "worker": self._worker,
        }
        if answer.opt_out:
            columns |= {"signal": answer.opt_out.signal, "signal_value": answer.opt_out.value}
        return Result(columns)
