"""The Spark engine: small jobs over part names; images never pass through Spark.

Each job is one order, a few parts for one Spark task, and as many jobs are under way as there are workers. Why not one
job over all parts: Spark hands a job's rows to the driver when all of it is done (`toLocalIterator` runs one partition after
another), fails all of it when one task fails too often, and cannot be told how many tasks may run beside each other. What
a task has done is in its rows; on pools in a file system it also tells of each part at once, in a folder of the pool, so that
a wave need not wait for the end of an order. Both work alike on a session of one's own and on Spark Connect; accumulators
and listeners do not.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.engines.base import EngineSettings, PartFailure
from curate.engines.outbox import Outbox, Said, decode
from curate.engines.skew import versions
from curate.engines.spark_cluster import Cluster, connect, last_line, refusal
from curate.engines.spark_worker import OUTCOMES, Order, work
from curate.errors import CurateError
from curate.stage import PartReport, PartTask, Phase
from curate.store import Pool

_LONGEST = 16  # parts of an order for each part that a worker does at once: fewer orders, but also less to share out at the end
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

    tasks: dict[int, PartTask]
    cells: Sequence[bytes] = ()
    error: Exception | None = None


class _Jobs:
    """One phase over some parts."""

    def __init__(self, settings: EngineSettings, phase: Phase, tasks: Sequence[PartTask], cluster: Cluster) -> None:
        self.settings, self.cluster, self.resources = settings, cluster, phase.resources
        self.blob, self.profile = pickle.dumps(phase), cluster.profile(phase.resources)
        self.waiting, self.tries = collections.deque(tasks), collections.Counter[int]()
        self.left = {task.part for task in tasks}
        self.running: list[_Job] = []
        self.ended: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.tag, self.outbox = f"curate-{uuid.uuid4().hex}", _outbox(tasks[0].pool)
        self.checked = time.monotonic()

    def outcomes(self) -> Iterator[PartReport | PartFailure]:
        """One for each part, as they come. Closing it ends the jobs."""
        if self.outbox:
            self.outbox.open()
        try:
            while self.left:
                self._hand_out()
                for said in self._events():
                    if isinstance(said, CurateError):
                        raise said
                    if said.part in self.left:  # an order that was given again may be done twice
                        self.left.discard(said.part)
                        yield said
        finally:
            self.cluster.cancel(self.tag)
            if self.outbox:
                self.outbox.close()

    # -- orders

    def _hand_out(self) -> None:
        """Starts jobs while parts wait and there is room."""
        lanes = (self.settings.workers or self.cluster.lanes()) if self.waiting else 0
        while self.waiting and len(self.running) < lanes:
            job = _Job({task.part: task for task in self._next(lanes)})
            self.running.append(job)
            threading.Thread(target=self._run, args=(job, self._order(job)), name="spark job", daemon=True).start()

    def _next(self, lanes: int) -> Iterator[PartTask]:
        """The parts of the next order: many while much is left, few at the end; one whose worker died goes alone."""
        at_once, fair = self.resources.parts_at_once, -(-len(self.waiting) // lanes)
        share = -(-fair // 2) if lanes > 1 else fair
        size = min(max(share, min(at_once, fair)), _LONGEST * at_once)
        for number in range(size):
            if not self.waiting or (number and self.tries[self.waiting[0].part]):
                return
            task = self.waiting.popleft()
            yield task
            if self.tries[task.part]:
                return

    def _order(self, job: _Job) -> bytes:
        tried = max(self.tries[part] for part in job.tasks)
        outbox = str(self.outbox.folder) if self.outbox else None
        tasks = tuple(job.tasks.values())
        return pickle.dumps(Order(self.blob, self.resources.parts_at_once, tasks, self.settings, outbox, tried))

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
            self.running.remove(job)
            yield from self._judge(job)
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

    def _judge(self, job: _Job) -> Iterator[Said]:
        """What a job's rows say; parts of which it says nothing lost their worker, and are given again or given up."""
        yield from map(decode, job.cells)
        lost = [task for part, task in job.tasks.items() if part in self.left]
        if not lost:
            return
        why = ""
        if job.error is not None:
            self.cluster.check()
            why = self._reason(job.error)
        for task in lost:
            self.tries[task.part] += 1
            if self.tries[task.part] >= self.settings.tries:
                yield PartFailure(task.part, f"its worker died {self.settings.tries} times{why}", crashed=True)
            else:
                self.waiting.append(task)

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
