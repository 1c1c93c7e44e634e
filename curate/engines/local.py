"""The local engine: a pool of processes that outlives the death of any of them."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import gc
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Literal

from curate.engines.base import EngineSettings, PartFailure, worker_count
from curate.engines.cost import opened
from curate.errors import CurateError
from curate.stage import PartReport, PartTask, Phase

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_spawn = get_context("spawn")  # fork would copy locks that other threads of the driver hold

Answer = tuple[Literal["ready", "report", "stop", "bug"], int, object]
"""What happened, to which part (-1 for `ready`), and what there is to say."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    tasks: dict[int, PartTask] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)  # part -> when its work began; loading a model is no part's time
    ready: bool = False  # has opened the phase

    def is_hung(self, seconds: float) -> bool:
        """Whether one of its parts has taken longer than `seconds`."""
        return self.ready and any(time.monotonic() - begun > seconds for begun in self.since.values())

    def assign(self, task: PartTask) -> None:
        """Sends a part; what cannot be sent to a dead worker is found out at the next look at its connection."""
        self.tasks[task.part], self.since[task.part] = task, time.monotonic()
        with contextlib.suppress(OSError):
            self.connection.send(task)

    def receive(self) -> Answer | None:
        """The worker's next answer, or None when it died instead."""
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        return answer

    def dismiss(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def make(settings: EngineSettings) -> LocalEngine:
    """What `curate.run.make_engine` asks every engine's module for."""
    return LocalEngine(settings)


class LocalEngine:
    """Processes on this machine. A worker that dies costs its parts a try, and nothing else.

    A part whose worker died is tried again by a worker that does nothing beside it, so that no part pays for another's.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    @property
    def workers(self) -> int:
        """Processes that work at once."""
        return worker_count(self.settings)

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`."""
        job = _Job(pickle.dumps(phase), phase.resources.parts_at_once, collections.deque(tasks))
        crew = [self._hire(job) for _ in range(min(self.workers, len(tasks)))]
        left = len(tasks)
        try:
            while left:
                _hand_out(crew, job)
                for outcome in self._outcomes(crew, job):
                    left -= 1
                    yield outcome
        finally:
            for worker in crew:
                worker.dismiss()

    def _outcomes(self, crew: list[_Worker], job: _Job) -> Iterator[PartReport | PartFailure]:
        """Waits for the next event, yields what came to an end."""
        ready = wait([worker.connection for worker in crew if worker.tasks], timeout=1.0)
        for index, worker in enumerate(crew):
            if worker.connection in ready:
                answer = worker.receive()
                if answer is not None:
                    yield from _heard(worker, answer)
                    continue
            elif not worker.is_hung(self.settings.part_seconds):
                continue
            worker.dismiss()
            crew[index] = self._hire(job)
            yield from self._lost(worker, job)

    def _lost(self, worker: _Worker, job: _Job) -> Iterator[PartFailure]:
        """The parts of a dead worker: again, or given up."""
        for part, task in worker.tasks.items():
            job.tries[part] += 1
            if job.tries[part] >= self.settings.tries:
                yield PartFailure(part, f"its worker died {self.settings.tries} times", crashed=True)
            else:
                job.waiting.appendleft(task)

    def _hire(self, job: _Job) -> _Worker:
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # else glibc keeps what each of a worker's threads once needed
        ours, theirs = _spawn.Pipe()
        arguments = (job.blob, theirs, self.settings.threads_per_worker, job.parts_at_once, os.getpid())
        process = _spawn.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


@dataclass
class _Job:
    """The phase as bytes, how many parts a worker does side by side, what waits, and how often a part's worker died."""

    blob: bytes
    parts_at_once: int
    waiting: collections.deque[PartTask]
    tries: collections.Counter[int] = field(default_factory=collections.Counter)

    def may_take(self, worker: _Worker, task: PartTask) -> bool:
        """A part under suspicion is done alone."""
        if not worker.tasks:
            return True
        suspected = self.tries[task.part] or any(self.tries[part] for part in worker.tasks)
        return not suspected and len(worker.tasks) < self.parts_at_once


def _hand_out(crew: Sequence[_Worker], job: _Job) -> None:
    """Gives the next parts to those who have least to do."""
    while job.waiting:
        worker = min(crew, key=lambda one: len(one.tasks))
        if not job.may_take(worker, job.waiting[0]):
            return
        worker.assign(job.waiting.popleft())


def _heard(worker: _Worker, answer: Answer) -> Iterator[PartReport | PartFailure]:
    kind, part, content = answer
    if kind == "ready":
        worker.ready, worker.since = True, dict.fromkeys(worker.since, time.monotonic())
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


def _work(blob: bytes, connection: Connection, threads: int, parts_at_once: int, driver: int) -> None:
    """A worker's life: open the phase once, do part after part, end with the driver."""
    _die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops its workers itself
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    gc.set_threshold(20_000, 50, 100)  # thousands of rows under way are no garbage; the usual 700 looks at them all the time
    phase: Phase = pickle.loads(blob)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        try:
            do = stack.enter_context(opened(phase))
        except Exception as error:  # the phase could not even be opened: every part hears why
            do = functools.partial(_raise, error, error.__traceback__)
        connection.send(("ready", -1, None))
        if parts_at_once == 1:
            while True:
                connection.send(_answer(do, connection.recv()))
        hands, sending = stack.enter_context(ThreadPoolExecutor(parts_at_once, "part")), threading.Lock()
        while True:
            hands.submit(_send, connection, sending, do, connection.recv())


def _send(connection: Connection, sending: threading.Lock, do: object, task: PartTask) -> None:
    answer = _answer(do, task)
    with sending:
        try:
            connection.send(answer)
        except Exception:  # an answer that cannot be sent is a bug too, and the driver must hear of it
            connection.send(("bug", task.part, traceback.format_exc()))


def _raise(error: Exception, trace: TracebackType | None, task: PartTask) -> PartReport:
    raise error.with_traceback(trace)  # else it grows with every part


def _answer(do: object, task: PartTask) -> Answer:
    assert callable(do)
    try:
        return "report", task.part, do(task)
    except CurateError as error:
        return "stop", task.part, error
    except Exception:  # a bug in a stage: the part fails with its traceback, the run goes on
        return "bug", task.part, traceback.format_exc()


def _die_with(driver: int) -> None:
    """Asks Linux to end this process when the driver ends, even by SIGKILL."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return  # not Linux: the closed pipe ends the worker after its part
    if os.getppid() != driver:
        os._exit(1)
