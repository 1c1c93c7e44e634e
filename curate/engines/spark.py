"""The Spark engine: small jobs over part names; images never pass through Spark.

Each job is one order for one Spark task, and as many jobs are under way as there are workers. Why not one job over all parts:
Spark hands a job's rows to the driver when all of it is done (`toLocalIterator` runs one partition after another), fails all
of it when one task fails too often, and cannot be told how many tasks may run beside each other. On pools in a file system an
order lives long: its task takes part after part from a folder of the pool, and tells there of each as it ends, since a job
costs more than a small part, and a worker that overlaps parts runs dry at the end of each order. On object stores, where
driver and workers share no folder, an order is a few parts, and what became of them is in its rows. Both work alike on a
session of one's own and on Spark Connect, and without a connection from the workers to the driver; accumulators and
listeners do not.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import pickle
import queue
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.engines.base import EngineSettings, PartFailure
from curate.engines.offers import Offers
from curate.engines.outbox import Outbox, Said, decode
from curate.engines.skew import versions
from curate.engines.spark_cluster import Cluster, connect, last_line, refusal
from curate.engines.spark_worker import OUTCOMES, Order, work
from curate.errors import CurateError
from curate.stage import PartReport, PartTask, Phase
from curate.store import Pool

_LONGEST = 16  # parts of an order on an object store for each that a worker does at once: more would leave less to share out at the end
_AHEAD = 64  # parts offered beyond what all workers do at once, for what they finish until the driver looks again
_POLL_SECONDS = 0.1
_CHECK_SECONDS = 2.0


def make(settings: EngineSettings) -> SparkEngine:
    """What `curate.run.make_engine` asks every engine's module for."""
    return SparkEngine(settings)


class SparkEngine:
    """Tasks on a Spark cluster: that of the session that is there, of spark-submit, or of `engine.master`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`. Raises UsageError for a wrong master or other software on the executors, ClusterLost."""
        if tasks:
            yield from _Jobs(self.settings, phase, tasks, connect(self.settings)).outcomes()


@dataclass
class _Job:
    """An order under way: one Spark job, watched by a thread."""

    name: str
    tasks: Sequence[PartTask]  # none where it takes them itself
    cells: Sequence[bytes] = ()
    error: Exception | None = None


class _Jobs:
    """One phase over some parts."""

    def __init__(self, settings: EngineSettings, phase: Phase, tasks: Sequence[PartTask], cluster: Cluster) -> None:
        self.settings, self.cluster, self.resources = settings, cluster, phase.resources
        self.blob, self.profile = pickle.dumps(phase), cluster.profile(phase.resources)
        self.waiting, self.tries = collections.deque(tasks), collections.Counter[int]()
        self.left = {task.part: task for task in tasks}
        self.running: dict[str, _Job] = {}
        self.ended: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.tag, self.outbox = f"curate-{uuid.uuid4().hex}", _outbox(tasks[0].pool)
        self.offers = Offers(self.outbox.folder) if self.outbox else None
        self.at_once = min(self.resources.parts_at_once, -(-len(tasks) // self._lanes()))
        self.checked, self.why, self.fruitless = time.monotonic(), "", 0  # fruitless: jobs that did nothing since a part was last told of

    def outcomes(self) -> Iterator[PartReport | PartFailure]:
        """One for each part, as they come. Closing it ends the jobs."""
        try:
            if self.outbox and self.offers:
                self.outbox.open()
                self.offers.open()
            while self.left:
                self._hand_out()
                for said in self._events():
                    if isinstance(said, CurateError):
                        raise said
                    if self.left.pop(said.part, None):  # an order that was given again may be done twice
                        self.fruitless = 0
                        yield said
        finally:
            self.cluster.cancel(self.tag)
            if self.outbox:
                self.outbox.close()

    # -- orders

    def _lanes(self) -> int:
        return self.settings.workers or self.cluster.lanes()

    def _hand_out(self) -> None:
        """Starts jobs while parts wait and there is room."""
        untaken = self.offers.count() if self.offers else 0
        lanes = self._lanes() if self.waiting or untaken else 0
        untaken += self._offer(lanes * self.at_once + _AHEAD - untaken)
        while len(self.running) < min(lanes, len(self.left)) and (self.waiting or untaken):
            job = _Job(uuid.uuid4().hex, () if self.offers else tuple(self._next(lanes)))
            self.running[job.name] = job
            threading.Thread(target=self._run, args=(job, self._order(job)), name="spark job", daemon=True).start()

    def _offer(self, room: int) -> int:
        """Leaves parts where workers find them; returns how many."""
        before = len(self.waiting)
        while self.offers and self.waiting and before - len(self.waiting) < room:
            task = self.waiting.popleft()
            self.offers.offer(task, self.tries[task.part])
        return before - len(self.waiting)

    def _next(self, lanes: int) -> Iterator[PartTask]:
        """The parts of the next order: many while much is left, few at the end; one whose worker died goes alone."""
        fair = -(-len(self.waiting) // lanes)
        share = -(-fair // 2) if lanes > 1 else fair
        size = min(max(share, min(self.at_once, fair)), _LONGEST * self.at_once)
        for number in range(size):
            if not self.waiting or (number and self.tries[self.waiting[0].part]):
                return
            task = self.waiting.popleft()
            yield task
            if self.tries[task.part]:
                return

    def _order(self, job: _Job) -> bytes:
        outbox = str(self.outbox.folder) if self.outbox else None
        return pickle.dumps(Order(job.name, self.blob, self.at_once, tuple(job.tasks), self.settings, outbox))

    def _run(self, job: _Job, order: bytes) -> None:
        """In a thread of its own: waits for the Spark job."""
        try:
            self.cluster.tag(self.tag)
            row = self.cluster.spark.range(0, 1, 1, 1)
            rows = row.mapInArrow(functools.partial(work, versions(), order), OUTCOMES, profile=self.profile).collect()
            job.cells = [bytes(row.outcome) for row in rows]
        except Exception as error:
            job.error = error
        self.ended.put(job)

    # -- what becomes of them

    def _events(self) -> Iterator[Said]:
        """Waits a little, yields what came to an end; what was told before the end of an order comes first."""
        ended = self._ended()
        yield from self.outbox.hear() if self.outbox else ()
        for job in ended:
            del self.running[job.name]
            yield from map(decode, job.cells)
            yield from self._judge(job)
        yield from self._lost(self.offers.abandoned(self.running) if self.offers else ())
        if time.monotonic() - self.checked > _CHECK_SECONDS:
            self.cluster.check()
            self.checked = time.monotonic()

    def _ended(self) -> list[_Job]:
        found: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            found.append(self.ended.get(timeout=_POLL_SECONDS))
            while True:
                found.append(self.ended.get_nowait())
        return found

    def _judge(self, job: _Job) -> Iterator[PartFailure]:
        """What has to be said of a job that has ended. Where job after job does nothing, though there is enough to do, all parts fail."""
        self.why = ""
        if job.error is not None:
            self.cluster.check()
            self.why = self._reason(job.error)
        yield from self._lost([task.part for task in job.tasks])
        self.fruitless += not job.cells and bool(job.error or (self.offers and self.offers.count()))
        if self.fruitless >= self.settings.tries * (len(self.running) + 1):
            yield from [PartFailure(part, f"Spark jobs did nothing, {self.fruitless} one after another{self.why}") for part in self.left]

    def _lost(self, parts: Iterable[int]) -> Iterator[PartFailure]:
        """Parts of orders that ended and did not tell of them lost their worker; they are given again or given up."""
        for part in parts:
            if part not in self.left:
                continue
            self.tries[part] += 1
            if self.tries[part] >= self.settings.tries:
                yield PartFailure(part, f"its worker died {self.settings.tries} times{self.why}", crashed=True)
            else:
                self.waiting.append(self.left[part])

    def _reason(self, error: Exception) -> str:
        """What Spark said, in a line. Raises what a worker raised, and what another try would not help."""
        said = str(error)
        refused = refusal(said)
        if refused:
            raise refused
        return f" (Spark: {last_line(said)})"


def _outbox(pool: str) -> Outbox | None:
    """Only where driver and workers see the same folders; on an object store the rows of an order must do."""
    return None if "://" in pool else Outbox(Pool(Path(pool)).temporary(".reports"))
