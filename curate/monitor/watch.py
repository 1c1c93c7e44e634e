"""Listens to a run's progress and tells others: `with watched(…) as progress`, then give that progress to the work.

A thread writes, at most once in `every_seconds`, so that no part waits for a file; what it writes is small, whole at any
moment, and outlives the run. Nothing here may end a run: a status document that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.errors import CurateError, RunFailed
from curate.monitor import openmetrics
from curate.monitor.boards import Board, open_board
from curate.monitor.documents import FOLDER, forget_old
from curate.monitor.settings import LogSettings
from curate.monitor.state import State, Task
from curate.progress import Progress
from curate.store import Pool, write_atomically

_BEAT_SECONDS = 4.0  # a run in which nothing moves says at least so often that it lives
_log = logging.getLogger(__name__)


@contextmanager
def watched(
    pool: Pool, owner: Mapping[str, object], what: str, settings: LogSettings, shown: Progress, config: Mapping[str, Any] | None = None
) -> Iterator[Progress]:
    """A progress that shows what it hears on `shown`, and tells it to whoever `settings` name, until the block ends.

    `owner` is that of the run's lease, `what` the words that it was started with, `config` what a board keeps of its
    settings. Raises MissingExtra, LocalFault before anything is done.
    """
    state = State(owner, what)
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(state.begun))}-{owner['host']}-{owner['pid']}-{uuid.uuid4().hex[:6]}"
    board = open_board(settings, Path(settings.folder) if settings.folder else pool.path / "logs", name, config or {})
    monitor = _Monitor(pool, state, settings, name, shown, board)
    monitor.begin()
    try:
        yield monitor
        monitor.end("finished")
    except BaseException as error:
        monitor.end("failed" if isinstance(error, RunFailed) else "stopped")
        raise


class _Monitor:
    """A `Progress` that passes on what it hears and remembers it."""

    def __init__(self, pool: Pool, state: State, settings: LogSettings, name: str, shown: Progress, board: Board | None) -> None:
        self.pool, self.state, self.settings, self.shown, self.board = pool, state, settings, shown, board
        self.status = pool.path / FOLDER / f"{name}.json"
        metrics = Path(settings.metrics) if settings.metrics else None
        self.metrics = metrics / f"curate-{name}.prom" if metrics and metrics.is_dir() else metrics
        self._busy, self._stop = threading.RLock(), threading.Event()
        self._moved: set[str] = set()
        self._thread = threading.Thread(target=self._tell_until_stopped, daemon=True)

    # -- what the work says

    def start(self, task: str, total: int | None, unit: str) -> None:
        """See `Progress`."""
        self.shown.start(task, total, unit)
        with self._busy:
            self.state.tasks[task] = Task(task, total, unit, time.time())
            self._event("task_started", task=task, total=total, unit=unit)

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """See `Progress`."""
        self.shown.advance(task, n, **facts)
        with self._busy:
            found = self.state.tasks[task]
            found.done += n
            figures = {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
            found.facts.update(figures)
            self._moved.add(task)
            if self.board and figures and found.unit == "steps":  # a curve wants each point, not the one of this second
                self.board.write(found.done, {f"{task}/{name}": value for name, value in figures.items()})

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        """See `Progress`."""
        self.shown.tally(task, reasons, counters)
        with self._busy:
            self.state.tasks[task].reasons = {name: rows for name, rows in reasons.items() if rows}
            self.state.tasks[task].counters = dict(counters)

    def finish(self, task: str) -> None:
        """See `Progress`."""
        self.shown.finish(task)
        with self._busy:
            found = self.state.tasks[task]
            found.keep_time(time.time())
            found.over = True
            self._moved.add(task)
            self._event("task_finished", **found.plain())

    # -- what others hear

    def begin(self) -> None:
        """Writes the first document and starts the thread."""
        with contextlib.suppress(OSError, CurateError):
            self.status.parent.mkdir(exist_ok=True)
            forget_old(self.pool)
        self._event("run_started")
        self._tell()
        self._thread.start()

    def end(self, state: str) -> None:
        """Writes the last document; a run that was refused before it began leaves none."""
        self._stop.set()
        self._thread.join()
        with self._busy:
            self.state.state = state
            self._tell()
            self._event("run_ended", state=state)
            if state == "stopped" and not self.state.tasks:
                for path in (self.status, self.status.with_suffix(".prom")):
                    path.unlink(missing_ok=True)
        if self.board:
            self.board.close()

    def _tell_until_stopped(self) -> None:
        said = time.monotonic()
        while not self._stop.wait(self.settings.every_seconds):
            if self._moved or time.monotonic() - said >= _BEAT_SECONDS:
                said = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        with self._busy:
            moved, self._moved = self._moved, set()
            document = self.state.plain(self.settings.every_seconds)
            for task in [task for task in document["tasks"] if task["name"] in moved]:
                self._event("progress", **task)
                self._draw(task)
        try:
            write_atomically(self.status, json.dumps(document).encode(), durable=False)
            text = openmetrics.text(document, self.pool.path.name, self.pool.free_bytes())
            for path in filter(None, (self.status.with_suffix(".prom"), self.metrics)):
                write_atomically(path, text.encode(), durable=False)
        except (OSError, CurateError) as error:
            _log.warning("cannot tell how the run goes: %s", error)

    def _event(self, event: str, **facts: object) -> None:
        if not self.settings.events:
            return
        line = json.dumps({"time": time.time(), "event": event, "pool": str(self.pool.path), "run": self.state.what, **facts})
        if self.settings.events == "-":
            print(line, file=sys.stderr, flush=True)
            return
        with contextlib.suppress(OSError), open(self.settings.events, "a") as stream:
            stream.write(line + "\n")

    def _draw(self, task: Mapping[str, Any]) -> None:
        """A point of each of the task's curves."""
        if not self.board:
            return
        figures = {"rate": task["rate"], **{f"rows_{reason}": float(rows) for reason, rows in task["reasons"].items()}, **task["counters"]}
        self.board.write(task["done"], {f"{task['name']}/{name}": float(value) for name, value in figures.items()})
