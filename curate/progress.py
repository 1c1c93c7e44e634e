"""How long work tells that it is alive: the callback the library calls and the command line draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives what a piece of work has done; tasks are named, one name per bar, and may run side by side."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Announces `task` with its `total` in `unit` (rows, parts, samples, bytes, steps); None when nobody knows."""

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """Adds `n` units; `facts` are shown beside the bar (`loss=3.2`, `failed=17`) until others replace them."""

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        """What `task` has come to so far: rows by reason, and what it took (bytes_read, cpu_seconds, …); for those who watch."""

    def finish(self, task: str) -> None:
        """Says that `task` is done, whether or not its total was reached."""


class Silent:
    """The `Progress` that shows nothing; the default everywhere in the library."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Shows nothing."""

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """Shows nothing."""

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        """Shows nothing."""

    def finish(self, task: str) -> None:
        """Shows nothing."""
