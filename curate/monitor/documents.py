"""The status documents of a pool's runs: `runs/<begun>-<host>-<pid>.json`, written by the driver, read by anyone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.lease import is_process_gone
from curate.store import Pool

FOLDER = "runs"
KEPT = 20
"""Documents of runs that are over; older ones go when a run begins."""
_SHOWN_REASONS = 6
_SILENT_SECONDS = 15.0  # without a word, after which a driver on another machine is taken for dead; beats come every few seconds


@dataclass(frozen=True)
class RunStatus:
    """One run as its document tells it; `state` is running, finished, stopped, failed, or dead (killed, nobody wrote its end)."""

    what: str
    state: str
    host: str
    pid: int
    begun: float
    heard: float  # when its driver last wrote, seconds since 1970
    tasks: tuple[Mapping[str, Any], ...]

    @property
    def heard_seconds_ago(self) -> float:
        """How old this news is."""
        return max(0.0, time.time() - self.heard)

    def lines(self) -> list[str]:
        """For a terminal: the run in a line, each task in one or two."""
        heard = f", heard {self.heard_seconds_ago:.0f} s ago" if self.state in ("running", "dead") else ""
        again = "; the same command resumes" if self.state in ("dead", "stopped", "failed") else ""
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.begun))
        lines = [f"{self.what}: {self.state}, begun {begun} by process {self.pid} on {self.host}{heard}{again}"]
        width = max((len(task["name"]) for task in self.tasks), default=0)
        return lines + [f"  {line}" for task in self.tasks for line in _task_lines(task, width)]


def _task_lines(task: Mapping[str, Any], width: int) -> Iterator[str]:
    of = "" if task["total"] is None else f" of {task['total']:,}"
    told = [f"{task['done']:,}{of} {task['unit']}", f"{task['seconds']:,.0f} s"]
    if not task["over"] and task["rate"]:
        told.append(f"{task['rate']:,.2f} a second")
    if task["eta_seconds"] is not None:
        told.append(f"{task['eta_seconds'] / 60:,.0f} min left")
    yield f"{task['name']:<{width}}  {', '.join(told)}"
    took, reasons = list(_took(task["counters"])), sorted(task["reasons"].items(), key=lambda pair: -pair[1])
    named = [f"{name} {rows:,}" for name, rows in reasons[:_SHOWN_REASONS]]
    if took or named:
        yield f"{'':<{width}}  {'; '.join(filter(None, (', '.join(named), ', '.join(took))))}"


def _took(counters: Mapping[str, float]) -> Iterator[str]:
    for name, unit in (("cpu_seconds", "CPU"), ("gpu_seconds", "GPU")):
        if name in counters:
            yield f"{counters[name]:,.0f} s {unit}"
    if "bytes_read" in counters:
        yield f"{counters['bytes_read'] / 2**20:,.1f} MiB read"


def runs(pool: Pool) -> list[RunStatus]:
    """What is known of the pool's runs, oldest first."""
    found = [status for path in sorted((pool.path / FOLDER).glob("*.json")) if (status := _read(path)) is not None]
    return sorted(found, key=lambda one: one.begun)


def forget_old(pool: Pool) -> None:
    """Deletes documents of runs that are over, all but the newest."""
    for path in list(_over(pool))[:-KEPT]:
        for suffix in (".json", ".prom"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def _over(pool: Pool) -> Iterator[Path]:
    for path in sorted((pool.path / FOLDER).glob("*.json")):
        status = _read(path)
        if status is None or status.state != "running":
            yield path


def _read(path: Path) -> RunStatus | None:
    try:
        said = json.loads(path.read_text())
        state = "dead" if said["state"] == "running" and _is_dead(said) else said["state"]
        return RunStatus(said["what"], state, said["host"], said["pid"], said["begun"], said["heard"], tuple(said["tasks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_dead(said: Mapping[str, Any]) -> bool:
    return is_process_gone(said) or time.time() - said["heard"] > max(_SILENT_SECONDS, 5 * said["every_seconds"])
