"""A part whose worker dies at every try: which of its rows are to blame, and the part without them.

Engines only say that the worker died. The search lies above them, so that it is the same on all: the part is given out
again with half of its rows left out, then with the other half, and so on down to single rows. Rows that kill the worker
alone end as `worker_crashed`; all others are done.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from curate.engines.base import Engine, PartFailure
from curate.parquet import read_table
from curate.stage import Divisible, PartReport, PartTask

MOST_ROWS = 16
"""Where more rows of one part kill their worker than this, it is not the rows' fault, and the part fails as a whole."""


def isolate(phase: Divisible, task: PartTask, hasty: Engine, patient: Engine) -> PartReport | PartFailure:
    """Does a part whose worker has died at every try; `hasty` gives up at the first death, `patient` after all tries.

    A part of n rows of which k are to blame is given out about 2·k·log2(n) times. Returns a failure when more than
    `MOST_ROWS` are to blame, when none is, or when the part fails for another reason.
    """
    rows = read_table(task.inputs[phase.inputs[0]], ["row"])["row"].to_pylist()
    search = _Search(phase, task, hasty, patient, tuple(rows))
    try:
        search.blame(search.rows)
        report = search.given(set(search.rows) - search.culprits)
    except _Failed as failed:
        return PartFailure(task.part, failed.message)
    if report is None:
        return PartFailure(task.part, f"its worker died at every try, and no {'other' if search.culprits else 'single'} row is to blame")
    return replace(report, counters=search.counters)


class _Failed(Exception):
    """The search ends here."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass
class _Search:
    """What is known of a part so far; `task` goes on from the rows that are done."""

    phase: Divisible
    task: PartTask
    hasty: Engine
    patient: Engine
    rows: tuple[int, ...]
    culprits: set[int] = field(default_factory=set)
    counters: collections.Counter[str] = field(default_factory=collections.Counter)

    def blame(self, rows: Sequence[int]) -> None:
        """Finds the culprits among rows that killed their worker together."""
        if len(rows) == 1:
            self.culprits.update(rows)
            if len(self.culprits) > MOST_ROWS:
                raise _Failed(f"its worker died on each of {len(self.culprits)} rows: that is not the rows' fault")
            return
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            if self.given(half) is None:
                self.blame(half)

    def given(self, rows: Sequence[int] | set[int]) -> PartReport | None:
        """Has these rows done, and no others; None when the worker died. A single row is tried as often as a part is."""
        order = replace(self.task, without=frozenset(self.rows).difference(rows))
        (outcome,) = (self.patient if len(rows) == 1 else self.hasty).each(self.phase, [order])
        if isinstance(outcome, PartReport):
            self.counters.update(outcome.counters)
            self.task = self.phase.after(self.task, outcome)
            return outcome
        if outcome.crashed:
            return None
        raise _Failed(outcome.message)
