"""What a run has done so far, as plain figures: one line a task, counted where the driver hears of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

RATE_SECONDS = 60.0
"""Rates are those of about the last minute: a moment forgets as exp(-t / this)."""


@dataclass
class Task:
    """One bar: `done` of `total` in `unit`; rows by reason, and counters (bytes_read, cpu_seconds, …), since it began."""

    name: str
    total: int | None
    unit: str
    begun: float
    done: int = 0
    rate: float = 0.0  # in `unit` a second, of late
    seconds: float = 0.0  # since it began; fixed when it is over
    over: bool = False
    facts: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    _marked: tuple[float, int] = (0.0, 0)

    @property
    def eta_seconds(self) -> float | None:
        """What is still to come at this rate; None when nobody knows."""
        return (self.total - self.done) / self.rate if self.total and self.rate and not self.over else None

    def keep_time(self, now: float) -> None:
        """Brings seconds and rate up to date; to be called now and then."""
        if self.over:
            return
        since, had = self._marked if self._marked[0] else (self.begun, 0)
        passed, self.seconds = now - since, now - self.begun
        if passed <= 0:
            return
        weight = min(1.0, max(passed / RATE_SECONDS, passed / max(self.seconds, 1e-9)))  # a young task's rate is its mean
        self.rate += weight * ((self.done - had) / passed - self.rate)
        self._marked = now, self.done

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        told = {key: value for key, value in asdict(self).items() if not key.startswith("_")}
        return {**told, "eta_seconds": self.eta_seconds}


class State:
    """All tasks of a run, in the order in which they began."""

    def __init__(self, owner: Mapping[str, object], what: str) -> None:
        self.owner, self.what, self.state, self.begun = dict(owner), what, "running", time.time()
        self.tasks: dict[str, Task] = {}

    def plain(self, every_seconds: float) -> dict[str, Any]:
        """The status document; `every_seconds` says how often a living driver writes one."""
        now = time.time()
        for task in self.tasks.values():
            task.keep_time(now)
        told = {"what": self.what, "state": self.state, "begun": self.begun, "heard": now, "every_seconds": every_seconds}
        return {**self.owner, **told, "tasks": [task.plain() for task in self.tasks.values()]}
