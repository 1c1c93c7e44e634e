"""A crew of workers that outlives the death of any of them: who gets the next part, and what a death costs."""

from __future__ import annotations

import collections
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from curate.engines.base import EngineSettings, PartFailure
from curate.engines.work import Answer
from curate.errors import CurateError
from curate.stage import PartReport, PartTask


class Worker(ABC):
    """One process somewhere that has opened the phase, or is about to, and the parts that it was given."""

    def __init__(self) -> None:
        self.tasks: dict[int, PartTask] = {}
        self.since: dict[int, tuple[float, int]] = {}  # part -> when it was given, and how many were in hand by then
        self.ready = False

    def assign(self, task: PartTask) -> None:
        """Gives it a part."""
        self.tasks[task.part] = task
        self.since[task.part] = time.monotonic(), len(self.tasks)
        self.send(task)

    def is_hung(self, seconds: float) -> bool:
        """Whether one of its parts has taken longer than `seconds`, and as long for each that it may have waited for."""
        return any(time.monotonic() - given > seconds * number for given, number in self.since.values())

    @abstractmethod
    def send(self, task: PartTask) -> None:
        """Sends a part; that the worker is dead already is found out later, by listening to it."""

    @abstractmethod
    def dismiss(self) -> None:
        """Ends the process."""


class Crew(ABC):
    """Gets parts done. A worker that dies costs its parts a try, and nothing else.

    A part whose worker died is tried again by a worker that does nothing beside it, so that no part pays for another's.
    """

    def __init__(self, settings: EngineSettings, parts_at_once: int, tasks: Sequence[PartTask], size: int) -> None:
        self.settings, self.size = settings, max(1, min(size, len(tasks)))
        self.waiting = collections.deque(tasks)
        self.tries = collections.Counter[int]()
        self.stillborn = 0  # workers in a row that died before they had opened the phase
        share = -(-len(tasks) // self.size)  # who is ready first leaves some for the others
        self.at_once = parts_at_once if self.size == 1 else min(parts_at_once, share)
        self.workers: list[Worker] = []

    @abstractmethod
    def hire(self) -> Worker:
        """Starts a worker, without waiting for it."""

    @abstractmethod
    def listen(self, seconds: float) -> list[tuple[Worker, Answer | None]]:
        """What workers said, waiting at most `seconds` for the first word; None for one that died instead."""

    def outcomes(self) -> Iterator[PartReport | PartFailure]:
        """One for each part, as they come. Closing it dismisses everybody. Raises what a worker raised as a CurateError."""
        try:
            yield from self.work()
        finally:
            self.dismiss()

    def add(self, tasks: Sequence[PartTask]) -> None:
        """Further parts for a crew that has done what it had; how often workers died before does not count for them."""
        self.waiting.extend(tasks)
        self.tries.clear()

    def work(self) -> Iterator[PartReport | PartFailure]:
        """Like `outcomes`, but the workers stay for what may be added."""
        while True:
            self._hand_out()
            if not self.waiting and not any(worker.tasks for worker in self.workers):
                return
            while len(self.workers) < self.size:
                self.workers.append(self.hire())
            for outcome in self._events():
                self._hand_out()  # first: who asks for outcomes may take long over one, and a worker would wait
                yield outcome

    def another(self) -> PartTask | None:
        """A part beyond those that were given, for a crew that finds its parts itself; asked for when somebody has room for it."""
        return None

    def dismiss(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            worker.dismiss()
        self.workers.clear()

    def _hand_out(self) -> None:
        """Gives the next parts to those who have least to do."""
        while self.waiting or self._find():
            worker = min(self._ready(), key=lambda one: len(one.tasks), default=None)
            if worker is None or not self._may_take(worker, self.waiting[0]):
                return
            worker.assign(self.waiting.popleft())

    def _ready(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.ready]

    def _find(self) -> bool:
        """Whether there is another part, which then waits; while no worker is ready, one is enough."""
        ready = self._ready()
        task = self.another() if not ready or any(map(self._has_room, ready)) else None
        self.waiting.extend([task] if task else [])
        return task is not None

    def _may_take(self, worker: Worker, task: PartTask) -> bool:
        """A part under suspicion is done alone."""
        return not worker.tasks or (not self.tries[task.part] and self._has_room(worker))

    def _has_room(self, worker: Worker) -> bool:
        return len(worker.tasks) < self.at_once and not any(self.tries[part] for part in worker.tasks)

    def _events(self) -> Iterator[PartReport | PartFailure]:
        """Waits for the next event, yields what came to an end."""
        for worker, said in self.listen(1.0):
            if worker not in self.workers:  # it has died, and owed several answers
                continue
            if said is None:
                yield from self._replace(worker)
            else:
                yield from self._heard(worker, said)
        for worker in [worker for worker in self.workers if worker.is_hung(self.settings.part_seconds)]:
            yield from self._replace(worker)

    def _heard(self, worker: Worker, said: Answer) -> Iterator[PartReport | PartFailure]:
        kind, part, content = said
        if kind == "ready":
            worker.ready, self.stillborn = True, 0
            return
        if kind == "stop":
            assert isinstance(content, CurateError)
            raise content
        del worker.tasks[part], worker.since[part]
        if kind == "bug":
            yield PartFailure(part, str(content))
        else:
            assert isinstance(content, PartReport)
            yield content

    def _replace(self, worker: Worker) -> Iterator[PartFailure]:
        """Another worker for one that died or hangs; its parts are done again, or given up."""
        worker.dismiss()
        self.stillborn += not worker.ready
        self.workers[self.workers.index(worker)] = self.hire()
        for part, task in worker.tasks.items():
            self.tries[part] += 1
            if self.tries[part] >= self.settings.tries:
                yield PartFailure(part, f"its worker died {self.settings.tries} times", crashed=True)
            else:
                self.waiting.appendleft(task)
        if self.stillborn >= self.settings.tries * self.size and not any(other.ready for other in self.workers):
            yield from self._give_up()

    def _give_up(self) -> Iterator[PartFailure]:
        """Every part fails: no worker lives long enough to be given one."""
        while self.waiting:
            yield PartFailure(self.waiting.popleft().part, f"{self.stillborn} workers died one after another while they opened the phase")
