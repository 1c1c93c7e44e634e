"""Progress at a terminal: one bar a task on stderr; a line now and then where stderr is a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from curate.progress import Progress

if TYPE_CHECKING:
    from curate.monitor.documents import RunStatus

LINE_SECONDS = 15.0


@contextlib.contextmanager
def display() -> Iterator[Progress]:
    """What the library reports to while a command runs."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from curate.cli.bars import Bars

    bars = Bars()
    with bars.live:
        yield bars


def watch_runs(look: Callable[[], Sequence[RunStatus]]) -> None:
    """Draws what runs say of themselves once a second, for as long as one is under way; Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False, transient=True) as live, contextlib.suppress(KeyboardInterrupt):
        while going := [run for run in look() if run.state == "running"]:
            live.update(Text("\n".join(line for run in going for line in run.lines())), refresh=True)
            time.sleep(1.0)


def shown(facts: dict[str, object]) -> str:
    """Facts beside a bar, for example `ok 1,234  loss 3.217`."""
    return "  ".join(f"{name} {_number(value)}" for name, value in facts.items())


def amount(done: float, total: float | None, unit: str) -> str:
    """How far a task is, for example `12 of 40 parts`, `3.1 MiB of 9.0 MiB`, `nothing new`."""
    if not total and not done:
        return "nothing new" if total == 0 else ""
    of = "" if total is None else f" of {_bytes(total) if unit == 'bytes' else f'{int(total):,}'}"
    return f"{_bytes(done)}{of}" if unit == "bytes" else f"{int(done):,}{of} {unit}"


def pace(per_second: float | None, unit: str) -> str:
    """How fast it goes, for example `312/s`, `4.1 MiB/s`, or `8.2 s each` where one takes long; empty when not known."""
    if not per_second:
        return ""
    if unit == "bytes":
        return f"{_bytes(per_second)}/s"
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def clock(seconds: float) -> str:
    """Minutes and seconds, for example `1:07`; hours before them where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bytes(size: float) -> str:
    from curate.catalog.status import human_bytes  # loads the database, which --help need not wait for

    return human_bytes(size)


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
        told = [amount(self.done, self.total, self.unit), f"{time.monotonic() - self.begun:.0f} s"]
        return f"{task}: {', '.join(filter(None, told))}  {shown(self.facts)}".rstrip()


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

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        """Says nothing more."""

    def finish(self, task: str) -> None:
        """Says how it ended."""
        click.echo(self._tasks.pop(task).text(task), err=True)
