"""The local engine: a pool of processes that outlives the death of any of them."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import os
import pickle
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Literal

from curate.engines.base import EngineSettings, PartFailure
from curate.errors import CurateError
from curate.stage import PartReport, PartTask, Phase

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_spawn = get_context("spawn")  # fork would copy locks that other threads of the driver hold

Answer = tuple[Literal["ready", "report", "stop", "bug"], object]


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: PartTask | None = None
    ready: bool = False  # has opened the phase; loading a model is no part's time
    since: float = 0.0


class LocalEngine:
    """Processes on this machine. A worker that dies costs its part a try, and nothing else."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    @property
    def workers(self) -> int:
        """Processes that work at once."""
        return self.settings.workers or os.cpu_count() or 1

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`."""
        waiting = collections.deque(tasks)
        tries: collections.Counter[int] = collections.Counter()
        blob = pickle.dumps(phase)
        crew = [self._hire(blob) for _ in range(min(self.workers, len(tasks)))]
        left = len(tasks)
        try:
            while left:
                for outcome in self._turn(crew, waiting, tries, blob):
                    left -= 1
                    yield outcome
        finally:
            for worker in crew:
                _dismiss(worker)

    def _turn(
        self, crew: list[_Worker], waiting: collections.deque[PartTask], tries: collections.Counter[int], blob: bytes
    ) -> Iterator[PartReport | PartFailure]:
        """Hands out work, waits for the next event, yields what came to an end."""
        for worker in crew:
            if worker.task is None and waiting:
                _assign(worker, waiting.popleft())
        ready = wait([worker.connection for worker in crew if worker.task], timeout=1.0)
        for index, worker in enumerate(crew):
            if worker.task is None:
                continue
            task, answer = worker.task, None
            if worker.connection in ready:
                answer = _receive(worker)
            elif not worker.ready or time.monotonic() - worker.since < self.settings.part_seconds:
                continue
            if answer is not None and answer[0] == "ready":
                worker.ready, worker.since = True, time.monotonic()
                continue
            if answer is not None:
                worker.task = None
                yield _outcome(task.part, answer)
                continue
            _dismiss(worker)
            crew[index] = self._hire(blob)
            tries[task.part] += 1
            if tries[task.part] >= self.settings.tries:
                yield PartFailure(task.part, f"its worker died {self.settings.tries} times")
            else:
                waiting.appendleft(task)

    def _hire(self, blob: bytes) -> _Worker:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(target=_work, args=(blob, theirs, self.settings.threads_per_worker, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _assign(worker: _Worker, task: PartTask) -> None:
    worker.task, worker.since = task, time.monotonic()
    with contextlib.suppress(OSError):  # it is dead already; the next look at its connection finds that out
        worker.connection.send(task)


def _receive(worker: _Worker) -> Answer | None:
    """The worker's answer, or None when it died instead."""
    try:
        answer: Answer = worker.connection.recv()
    except (EOFError, OSError):
        return None
    return answer


def _outcome(part: int, answer: Answer) -> PartReport | PartFailure:
    kind, content = answer
    if kind == "stop":
        assert isinstance(content, CurateError)
        raise content
    if kind == "bug":
        return PartFailure(part, str(content))
    assert isinstance(content, PartReport)
    return content


def _dismiss(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _work(blob: bytes, connection: Connection, threads: int, driver: int) -> None:
    """A worker's life: open the phase once, do part after part, end with the driver."""
    _die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops its workers itself
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    phase: Phase = pickle.loads(blob)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        try:
            do = stack.enter_context(phase.open())
        except Exception as error:  # the phase could not even be opened: every part hears why
            do = functools.partial(_raise, error, error.__traceback__)
        connection.send(("ready", None))
        while True:
            connection.send(_answer(do, connection.recv()))


def _raise(error: Exception, trace: TracebackType | None, task: PartTask) -> PartReport:
    raise error.with_traceback(trace)  # else it grows with every part


def _answer(do: object, task: PartTask) -> Answer:
    assert callable(do)
    try:
        return "report", do(task)
    except CurateError as error:
        return "stop", error
    except Exception:  # a bug in a stage: the part fails with its traceback, the run goes on
        return "bug", traceback.format_exc()


def _die_with(driver: int) -> None:
    """Asks Linux to end this process when the driver ends, even by SIGKILL."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return  # not Linux: the closed pipe ends the worker after its part
    if os.getppid() != driver:
        os._exit(1)
