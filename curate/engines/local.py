"""The local engine: a pool of processes that outlives the death of any of them."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from curate.engines.base import EngineSettings, PartFailure, worker_count
from curate.engines.crew import Crew, Worker
from curate.engines.work import Answer, Do, answer, environment, opened
from curate.orphan import die_with_parent
from curate.stage import PartReport, PartTask, Phase

_spawn = get_context("spawn")  # fork would copy locks that other threads of the driver hold


def make(settings: EngineSettings) -> LocalEngine:
    """What `curate.run.make_engine` asks every engine's module for."""
    return LocalEngine(settings)


class LocalEngine:
    """Processes on this machine."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    @property
    def workers(self) -> int:
        """Processes that work at once."""
        return worker_count(self.settings)

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`."""
        return Processes(self.settings, pickle.dumps(phase), phase.resources.parts_at_once, tasks, self.workers).outcomes()


class _Process(Worker):
    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        super().__init__()
        self.process, self.connection = process, connection

    def send(self, task: PartTask) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(task)

    def receive(self) -> Answer | None:
        """The worker's next answer, or None when it died instead."""
        try:
            said: Answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        return said

    def dismiss(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class Processes(Crew):
    """The crew of one phase: child processes, each at the other end of a pipe."""

    def __init__(self, settings: EngineSettings, blob: bytes, parts_at_once: int, tasks: Sequence[PartTask], size: int) -> None:
        super().__init__(settings, parts_at_once, tasks, size)
        self.blob = blob

    def hire(self) -> Worker:
        """Starts a child process."""
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # as `few_arenas`, from the first allocation on
        ours, theirs = _spawn.Pipe()
        arguments = (self.blob, theirs, self.settings.threads_per_worker, self.at_once, os.getpid())
        process = _spawn.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Process(process, ours)

    def listen(self, seconds: float) -> list[tuple[Worker, Answer | None]]:
        """Waits on the pipes."""
        crew = {worker.connection: worker for worker in self.workers if isinstance(worker, _Process)}
        speaking = set(wait(list(crew), timeout=seconds))
        return [(worker, worker.receive()) for connection, worker in crew.items() if connection in speaking]


def _work(blob: bytes, connection: Connection, threads: int, parts_at_once: int, driver: int) -> None:
    """A worker's life: open the phase once, do part after part, end with the driver."""
    die_with_parent(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops its workers itself
    os.environ.update(environment(threads))
    phase: Phase = pickle.loads(blob)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        do = opened(phase, stack)
        connection.send(("ready", -1, None))
        if parts_at_once == 1:
            while True:
                connection.send(answer(do, connection.recv()))
        hands, sending = stack.enter_context(ThreadPoolExecutor(parts_at_once, "part")), threading.Lock()
        while True:
            hands.submit(_send, connection, sending, do, connection.recv())


def _send(connection: Connection, sending: threading.Lock, do: Do, task: PartTask) -> None:
    said = answer(do, task)
    with sending:
        connection.send(said)
