"""Small real phases for the engine tests; workers import them by name."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema
from curate.errors import LocalFault, MissingExtra
from curate.stage import WORKER_CRASHED, PartReport, PartTask, Resources, fingerprint
from curate.store import Pool


@dataclass(frozen=True)
class Groups:
    """Writes a groups table that holds the hash of each row's caption; misbehaves as told on some parts."""

    die: Sequence[int] = ()  # parts whose worker is killed, every time
    die_once: Sequence[int] = ()  # parts whose worker is killed at the first try
    leave: Sequence[int] = ()  # parts whose worker ends itself, as a codec or a native library may
    raise_bug: Sequence[int] = ()
    long_bug: Sequence[int] = ()  # raises with a megabyte to say
    disk_full: Sequence[int] = ()
    lacks_torch: Sequence[int] = ()
    hang: Sequence[int] = ()  # at the first try
    fail_rows: Sequence[int] = ()  # every row of these parts fails with a reason
    wait_for: Sequence[int] = ()  # parts that wait until the driver has heard of another one
    seconds: float = 0.0  # that every part takes
    cannot_open: bool = False
    burn_seconds: float = 0.0  # of CPU time, for each part
    settings: str = "a"
    gpus: float = 0.0
    parts_at_once: int = 1

    name = "alone"
    table = "groups_alone"
    inputs = ("rows",)

    @property
    def resources(self) -> Resources:
        return Resources(memory_bytes=64 << 20, parts_at_once=self.parts_at_once, gpus=self.gpus)

    @property
    def schema(self) -> pa.Schema:
        return schema.table(self.table)

    def identity(self) -> str:
        return fingerprint("alone", self.settings)

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        if self.cannot_open:
            raise RuntimeError("no such model")
        opened = time.time_ns()
        yield lambda task: self._do(task, opened)

    def _do(self, task: PartTask, opened: int) -> PartReport:
        begun, folder = time.time(), Path(task.pool) / "tmp"
        note(folder / "begun", {"part": task.part, "pid": os.getpid()})
        self._misbehave(task.part, folder)
        time.sleep(self.seconds)
        until = time.thread_time() + self.burn_seconds
        while time.thread_time() < until:
            pass
        captions = pq.read_table(task.inputs["rows"], columns=["caption"])["caption"].to_pylist()
        hashes = [None if caption is None else hashlib.sha256(caption.encode()).hexdigest() for caption in captions]
        data = pa.table({"row": pa.array(range(len(hashes)), pa.int32()), "group_id": pa.array(hashes, pa.string())})
        written = Pool.open(task.pool).write_part(self.table, task.part, data, task.basis)
        threads = os.environ["OMP_NUM_THREADS"]
        note(folder / "visits", {"part": task.part, "pid": os.getpid(), "opened": opened, "threads": threads, "span": (begun, time.time())})
        reason = "http_not_found" if task.part in self.fail_rows else "ok"
        return PartReport(task.part, (written,), {reason: len(hashes)} if hashes else {}, {"visits": 1})

    def _misbehave(self, part: int, folder: Path) -> None:
        tried = folder / f"tried-{part}"
        first = not tried.exists()
        tried.touch()
        if part in self.die or (part in self.die_once and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if part in self.leave:
            os._exit(7)
        if part in self.raise_bug:
            raise ZeroDivisionError("planted")
        if part in self.long_bug:
            raise ValueError("x" * 1_000_000)
        if part in self.disk_full:
            raise LocalFault("the disk is full")
        if part in self.lacks_torch:
            raise MissingExtra("torch", "train")
        if part in self.hang and first:
            time.sleep(3600)
        if part in self.wait_for:
            wait_until((folder / "heard").exists)


@dataclass(frozen=True)
class Divided(Groups):
    """Can leave rows out; its worker dies on some rows of part 2."""

    deadly: Sequence[int] = ()

    def after(self, task: PartTask, report: PartReport) -> PartTask:
        return task

    def _do(self, task: PartTask, opened: int) -> PartReport:
        if task.part == 2 and set(self.deadly) - task.without:
            os.kill(os.getpid(), signal.SIGKILL)
        report = super()._do(task, opened)
        return replace(report, reasons={"ok": report.reasons["ok"] - len(task.without), WORKER_CRASHED: len(task.without)})


def note(path: Path, line: dict[str, Any]) -> None:
    """Appends a line to a file that many processes write."""
    with path.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def notes(path: Path) -> list[dict[str, Any]]:
    """What was noted so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Returns once the condition holds; an error after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
