"""Progress at a terminal: one bar a task on stderr; a line now and then where stderr is a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from curate.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_SECONDS = 15.0


@contextlib.contextmanager
def display() -> Iterator[Progress]:
    """What the library reports to while a command runs."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bars = Bars()
    with bars.live:
        yield bars


def shown(facts: dict[str, object]) -> str:
    """Facts beside a bar, for example `ok 1,234  loss 3.217`."""
    return "  ".join(f"{name} {_number(value)}" for name, value in facts.items())


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


class Bars:
    """Live bars, by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        self.live = Live(
            TextColumn("{task.description:>18}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[facts]}", style="dim", markup=False),
            console=Console(stderr=True),
        )
        self._ids: dict[str, TaskID] = {}

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Adds a bar, or begins an old one again."""
        if task in self._ids:
            self.live.remove_task(self._ids[task])
        self._ids[task] = self.live.add_task(task, total=total, unit=unit, facts="")

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """Moves a bar."""
        if facts:
            self.live.update(self._ids[task], advance=n, facts=shown(facts))
        else:
            self.live.advance(self._ids[task], n)

    def finish(self, task: str) -> None:
        """Fills a bar whose total nobody knew, and stops its clock."""
        one = self.live.tasks[self.live.task_ids.index(self._ids[task])]
        self.live.update(one.id, total=one.total if one.total is not None else one.completed)
        self.live.stop_task(one.id)


@dataclass
class _Line:
    total: int | None
    unit: str
    done: int = 0
    begun: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)
    facts: dict[str, object] = field(default_factory=dict)

    def text(self, task: str) -> str:
        """For example `fetch: 12 of 40 parts, 31 s  ok 9,120`."""
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{task}: {self.done:,}{of} {self.unit}, {time.monotonic() - self.begun:.0f} s  {shown(self.facts)}".rstrip()


class Lines:
    """Plain lines, at most one a task in `LINE_SECONDS`, and one at its end."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Line] = {}

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Remembers the task."""
        self._tasks[task] = _Line(total, unit)

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """Counts, and says so when it is time."""
        line = self._tasks[task]
        line.done += n
        line.facts = facts or line.facts
        if time.monotonic() - line.said >= LINE_SECONDS:
            line.said = time.monotonic()
            click.echo(line.text(task), err=True)

    def finish(self, task: str) -> None:
        """Says how it ended."""
        click.echo(self._tasks.pop(task).text(task), err=True)
