"""Live bars at a terminal, by rich: how far, how fast, how long still, and facts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from curate.cli.progress import amount, clock, pace, shown

WIDE_COLUMNS = 110  # on a narrower terminal bars are short, so that the facts beside them can be read


class Bars:
    """One bar a task; what is done stays, with the time it took."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.live = Progress(
            _Says(lambda task: task.description, Column(justify="right", no_wrap=True)),
            BarColumn(20 if console.width >= WIDE_COLUMNS else 6),
            _Says(lambda task: amount(task.completed, task.total, task.fields["unit"]), Column(no_wrap=True)),
            _Says(_pace, Column(justify="right", no_wrap=True)),
            _Says(_time, Column(no_wrap=True)),
            _Says(lambda task: task.fields["facts"], Column(no_wrap=True, overflow="ellipsis", ratio=1), "dim"),
            console=console,
            expand=True,
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

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        """Shows nothing more: the facts beside a bar say enough."""

    def finish(self, task: str) -> None:
        """Fills a bar whose total nobody knew, and stops its clock."""
        one = self.live.tasks[self.live.task_ids.index(self._ids[task])]
        self.live.update(one.id, total=one.total if one.total is not None else one.completed)
        self.live.stop_task(one.id)


class _Says(TextColumn):
    """A column whose text a function makes of the task; what a name holds is never read as markup."""

    def __init__(self, says: Callable[[Task], str], column: Column, style: str = "none") -> None:
        super().__init__("", style=style, markup=False, table_column=column)
        self._says = says

    def render(self, task: Task) -> Text:
        """The text."""
        return Text(self._says(task), style=self.style)


def _pace(task: Task) -> str:
    """Of late while it runs, on the whole when it is over."""
    over = task.finished or task.stop_time is not None
    return pace(task.completed / task.elapsed if over and task.elapsed else task.speed, task.fields["unit"])


def _time(task: Task) -> str:
    """Since its start, and what is still to come."""
    spent = clock(task.elapsed or 0)
    left = None if task.finished else task.time_remaining
    return f"{spent}, {clock(left)} left" if left else spent
