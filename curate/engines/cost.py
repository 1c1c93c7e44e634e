"""What a part costs the machine that works on it: CPU-seconds of the worker and of the processes it started."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from curate.stage import PartReport, PartTask, Phase

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def opened(phase: Phase) -> Iterator[Callable[[PartTask], PartReport]]:
    """What every engine calls on its workers: opens the phase, and adds `cpu_seconds` to what its parts report.

    A part bears what its worker spent since the last part ended, so that the sum over all parts is what was spent even
    where parts are worked on side by side; the first one bears the loading of models as well.
    """
    meter = _Meter()
    with phase.open() as do:

        def measured(task: PartTask) -> PartReport:
            report = do(task)
            return replace(report, counters={**report.counters, "cpu_seconds": meter.spent()})

        yield measured


class _Meter:
    """CPU-seconds of this process and its living descendants, piece by piece; several threads may ask."""

    def __init__(self) -> None:
        self._asking, self._told = threading.Lock(), cpu_seconds()

    def spent(self) -> float:
        """Since the last call."""
        with self._asking:
            now = cpu_seconds()
            since, self._told = max(0.0, now - self._told), now  # a child that ended unheard took its time with it
            return since


def cpu_seconds() -> float:
    """User and system time of this process, of children that ended and of those that live (a fetch worker's decoder)."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(map(_of_process, _children(os.getpid())))


def _of_process(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):  # it has just ended, or this is not Linux
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(_of_process, _children(pid)))


def _children(pid: int) -> list[int]:
    """As Linux lists them for each thread of the process; reading this costs less than a look at every process there is."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found
