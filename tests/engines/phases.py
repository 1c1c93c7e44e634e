"""Small real phases for the engine tests; workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema
from curate.errors import LocalFault
from curate.stage import PartReport, PartTask, Resources, fingerprint
from curate.store import Pool


@dataclass(frozen=True)
class Groups:
    """Writes a groups table that says each row stands alone; misbehaves as told on some parts."""

    die: tuple[int, ...] = ()  # parts whose worker is killed, every time
    die_once: tuple[int, ...] = ()  # parts whose worker is killed at the first try
    raise_bug: tuple[int, ...] = ()
    disk_full: tuple[int, ...] = ()
    hang: tuple[int, ...] = ()
    cannot_open: bool = False
    settings: str = "a"

    name = "alone"
    table = "groups_alone"
    inputs = ("rows",)
    resources = Resources()

    @property
    def schema(self) -> pa.Schema:
        return schema.table(self.table)

    def identity(self) -> str:
        return fingerprint("alone", self.settings)

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        if self.cannot_open:
            raise RuntimeError("no such model")
        yield self._do

    def _do(self, task: PartTask) -> PartReport:
        pool = Pool.open(task.pool)
        tried = pool.path / "tmp" / f"tried-{task.part}"
        if task.part in self.die or (task.part in self.die_once and not tried.exists()):
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task.part in self.raise_bug:
            raise ZeroDivisionError("planted")
        if task.part in self.disk_full:
            raise LocalFault("the disk is full")
        if task.part in self.hang and not tried.exists():
            tried.touch()
            time.sleep(3600)
        count = pq.read_metadata(task.inputs["rows"]).num_rows
        data = pa.table({"row": pa.array(range(count), pa.int32()), "group_size": pa.array([1] * count, pa.int32())})
        with (Path(task.pool) / "tmp" / "visits").open("a") as visits:
            visits.write(f"{task.part} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
        return PartReport(task.part, (pool.write_part(self.table, task.part, data, task.basis),), {"ok": count}, {"visits": 1})
