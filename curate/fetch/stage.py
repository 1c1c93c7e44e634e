"""The fetch stage: URLs in, image bytes and their description out, with network and codec running side by side.

One event loop in a thread keeps many requests under way, for all parts that the worker has in hand; a child process
decodes and encodes meanwhile. Rows are done in any order, so that a slow host holds up nobody; batches leave in the order in
which they came. What waits is bounded: bodies by a byte budget, rows under way by `rows_under_way`, finished images by
`buffer_bytes`, beyond which they wait on disk.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import os
import pickle
import queue
import resource
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import uvloop

from curate.fetch.buffer import ByteBudget, Spill
from curate.fetch.client import Client, RunFacts, connect
from curate.fetch.decoder import Decoder
from curate.fetch.exchange import Answer
from curate.fetch.rows import RESULT_COLUMNS, TELEMETRY_COLUMNS, Asked, Fetched, FetchRows, added, as_compute, needed
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish
from curate.media.url import redacted
from curate.stage import Compute, Resources, identity_of

_Result = tuple[bytes, bytes | int | None]
"""A row's columns as one piece of memory (see `_packed`), and the image to store, or where it waits in a Spill."""
_COLUMNS = (*RESULT_COLUMNS, *TELEMETRY_COLUMNS)


@dataclass(frozen=True)
class FetchStage:
    """Needs `url`, `skip` (the reason for which a row is not to be requested, else null) and `wish` (see `Wish`).

    Adds the columns of `fetched` that describe the image, telemetry, and `image`, the bytes to store (null with a
    reason). `run` is told by the phase; no outcome depends on it but on which day an opt-out with a date is judged.
    """

    settings: FetchSettings = field(default_factory=FetchSettings)
    run: RunFacts = field(default_factory=RunFacts)
    version: int = 2

    @property
    def resources(self) -> Resources:
        """One core, memory for bodies, images and look-ahead, and several parts at once."""
        return Resources(cpus=1, memory_bytes=512 << 20, parts_at_once=self.settings.parts_at_once)

    @property
    def needs(self) -> pa.Schema:
        """See `rows.needed`."""
        return needed()

    @property
    def adds(self) -> pa.Schema:
        """See `rows.added`."""
        return added()

    def identity(self) -> str:
        """Fingerprint of what shapes outcomes; deadlines, manners and thread counts do not."""
        return identity_of("fetch", self.version, self.settings.identity())

    @contextmanager
    def open(self) -> Iterator[Compute]:
        """As `open_rows`, in batches."""
        with self.open_rows() as fetch:
            yield as_compute(fetch, self.adds)

    @contextmanager
    def open_rows(self) -> Iterator[FetchRows]:
        """Starts the event loop and the decoder; stops both at the end, whatever is under way. Any thread may fetch."""
        _raise_descriptor_limit()
        with closing(_Engine(self.settings, self.run)) as engine:
            yield partial(_in_order, engine)


def _raise_descriptor_limit() -> None:
    """Many requests need many descriptors; the usual soft limit of 1,024 is far below what the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _in_order(engine: _Engine, batches: Iterable[Sequence[Asked]]) -> Iterator[Fetched]:
    """Has all batches done and yields their rows' outcomes in order."""
    with closing(Spill()) as spill, closing(engine.feed(batches, spill)) as feed:
        for batch in feed:
            yield from engine.collect(batch, spill)


class _Feed:
    """The batches of one part as they begin. Closing it gives up what is under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._begun: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._current: _Batch | None = None
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Callable[[Callable[[_Batch], None]], Coroutine[None, None, None]]) -> None:
        """On the event loop: `work` begins one batch after the other and tells of each."""
        self._task = asyncio.ensure_future(work(self._begun.put))
        self._task.add_done_callback(lambda _: self._begun.put(None))

    def __iter__(self) -> Iterator[_Batch]:
        while batch := self._next():
            yield batch
        if self._task:
            self._task.result()

    def _next(self) -> _Batch | None:
        self._current = self._begun.get()
        self._is_over = self._current is None
        return self._current

    def close(self) -> None:
        """Returns when no batch can begin any more."""
        if not self._is_over:
            self._loop.call_soon_threadsafe(self._cancel)
        while not self._is_over:
            if self._current:
                self._loop.call_soon_threadsafe(self._current.whole.cancel)
            self._next()

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()


@dataclass(frozen=True)
class _Batch:
    """Rows that are under way: `whole` belongs to the event loop, `results` to whoever waits in a thread."""

    whole: asyncio.Future[list[_Result]]
    results: concurrent.futures.Future[list[_Result]] = field(default_factory=concurrent.futures.Future)

    def tell(self, whole: asyncio.Future[list[_Result]]) -> None:
        """`whole` is done."""
        if whole.cancelled():
            self.results.set_exception(concurrent.futures.CancelledError())
        elif error := whole.exception():
            self.results.set_exception(error)
        else:
            self.results.set_result(whole.result())


class _Engine:
    """An event loop in a thread, with its client and decoder."""

    def __init__(self, settings: FetchSettings, run: RunFacts) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._settings = settings
        self._thread.start()
        self._closing = asyncio.run_coroutine_threadsafe(self._start(run), self._loop).result()

    async def _start(self, run: RunFacts) -> asyncio.Event:
        """Opens the client in a task of its own, so that the task that opened it also closes it."""
        ready, closing = asyncio.Event(), asyncio.Event()
        self._session = asyncio.ensure_future(self._serve(run, ready, closing))
        starting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({self._session, starting}, return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if self._session.done():
            self._session.result()
        return closing

    async def _serve(self, run: RunFacts, ready: asyncio.Event, closing: asyncio.Event) -> None:
        budget = ByteBudget(self._settings.buffer_bytes, self._settings.max_bytes)
        decoder = Decoder(self._settings)
        try:
            async with connect(self._settings, budget, run) as client:
                self._fetcher = _Fetcher(client, decoder, self._settings)
                ready.set()
                await closing.wait()
        finally:
            await decoder.close()

    def feed(self, batches: Iterable[Sequence[Asked]], spill: Spill) -> _Feed:
        """Begins batches when there is room for them; images for which memory has no room go to `spill`."""
        feed = _Feed(self._loop)
        self._loop.call_soon_threadsafe(feed.start, partial(self._fetcher.feed, batches, spill))
        return feed

    def collect(self, batch: _Batch, spill: Spill) -> Iterator[Fetched]:
        """Waits for a batch. Raises what went wrong in it."""
        results = batch.results.result()
        self._loop.call_soon_threadsafe(self._fetcher.collected, _held_bytes(results))
        for packed, image in results:
            yield _unpacked(packed), spill.get(image) if isinstance(image, int) else image

    def close(self) -> None:
        """Cancels what is under way and ends threads and connections."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task(), self._session}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._closing.set()
        try:
            await self._session
        finally:
            await asyncio.get_running_loop().shutdown_default_executor()


class _Fetcher:
    """Rows on the event loop: request, then decoder."""

    def __init__(self, client: Client, decoder: Decoder, settings: FetchSettings) -> None:
        self._client = client
        self._decoder = decoder
        self._settings = settings
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._held_bytes = 0
        self._places = asyncio.Semaphore(settings.rows_under_way)
        self._turn = asyncio.Lock()

    async def feed(self, batches: Iterable[Sequence[Asked]], spill: Spill, tell: Callable[[_Batch], None]) -> None:
        """Begins the batches of one part, after those of the parts that came before; takes each when there is room for its rows."""
        async with self._turn:
            for asked in batches:
                tell(await self._begin(asked, spill))

    async def _begin(self, asked: Sequence[Asked], spill: Spill) -> _Batch:
        rows: list[asyncio.Future[_Result]] = []
        try:
            for url, skip, wish in asked:
                await self._places.acquire()
                row = asyncio.ensure_future(self._row(url, skip, wish, spill))
                row.add_done_callback(self._leave)
                rows.append(row)
        except BaseException:
            self._give_up(rows)
            raise
        batch = _Batch(asyncio.gather(*rows))
        batch.whole.add_done_callback(lambda whole: self._give_up(rows) if whole.cancelled() or whole.exception() else None)
        batch.whole.add_done_callback(batch.tell)
        return batch

    def _give_up(self, rows: Sequence[asyncio.Future[_Result]]) -> None:
        """Nobody will collect what these rows bring."""
        for row in rows:
            row.cancel()
            row.add_done_callback(self._drop)

    def _drop(self, row: asyncio.Future[_Result]) -> None:
        if not row.cancelled() and row.exception() is None:
            self.collected(_held_bytes([row.result()]))

    def _leave(self, row: asyncio.Future[_Result]) -> None:
        self._places.release()

    def collected(self, size: int) -> None:
        """Bytes of finished images that left memory."""
        self._held_bytes -= size

    async def _row(self, url: str, skip: str | None, wish: Wish, spill: Spill) -> _Result:
        if skip is not None:
            return _packed({"reason": skip}), None
        answer = await self._client.get(url)
        columns = self._described(answer)
        if answer.body is None:
            return _packed(columns), None
        try:
            found, image = await self._decoder.outcome(answer.body, wish)
        finally:
            self._client.release(answer)
        columns.update(found)
        return _packed(columns), image if image is None else self._held(image, spill)

    def _held(self, image: bytes, spill: Spill) -> bytes | int:
        if self._held_bytes >= self._settings.buffer_bytes // 4:
            return spill.put(image)
        self._held_bytes += len(image)
        return image

    def _described(self, answer: Answer) -> dict[str, object]:
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
        return columns


def _packed(columns: dict[str, object]) -> bytes:
    """Behind a slow host thousands of finished rows wait, of some twenty objects each: so many small ones are never all given back."""
    return pickle.dumps([columns.get(name) for name in _COLUMNS], pickle.HIGHEST_PROTOCOL)


def _unpacked(packed: bytes) -> dict[str, object]:
    return dict(zip(_COLUMNS, pickle.loads(packed), strict=True))


def _held_bytes(results: Iterable[_Result]) -> int:
    """Of the images that are in memory."""
    return sum(len(image) for _, image in results if isinstance(image, bytes))
