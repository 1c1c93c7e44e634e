"""Rows sorted into parts with bounded memory: runs of rows on disk, one Arrow batch per part in each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.store import Pool


@dataclass(frozen=True)
class _SortedRun:
    """A file whose i-th batch holds rows of part `parts[i]`; `parts` ascend."""

    reader: pa.ipc.RecordBatchFileReader
    parts: npt.NDArray[np.int64]

    def batches(self, part: int) -> list[pa.RecordBatch]:
        at = int(np.searchsorted(self.parts, part))
        return [self.reader.get_batch(at)] if at < len(self.parts) and self.parts[at] == part else []


class Spool:
    """Takes rows of any part in any mix, gives back each part's rows in the order in which they came."""

    def __init__(self, pool: Pool, schema: pa.Schema, budget_bytes: int) -> None:
        self._pool, self._schema, self._budget_bytes = pool, schema, budget_bytes
        self._waiting: list[tuple[npt.NDArray[np.int64], pa.RecordBatch]] = []
        self._waiting_bytes = 0
        self._runs: list[_SortedRun] = []
        self._paths: list[Path] = []

    def add(self, parts: npt.NDArray[np.int64], rows: pa.RecordBatch) -> None:
        """Adds rows with the part of each; writes a run when the budget is reached."""
        if rows.num_rows:
            self._waiting.append((parts, rows))
            self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self._budget_bytes:
            self.flush()

    def flush(self) -> None:
        """Writes what waits in memory as one run."""
        if not self._waiting:
            return
        parts = np.concatenate([found for found, _ in self._waiting])
        rows = pa.Table.from_batches([batch for _, batch in self._waiting], self._schema).combine_chunks()
        self._waiting, self._waiting_bytes = [], 0
        order = np.argsort(parts, kind="stable")  # stable: rows of a part keep the list's order
        numbers, starts = np.unique(parts[order], return_index=True)
        path = self._pool.temporary(".arrow")
        self._paths.append(path)
        with pa.ipc.new_file(path, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
                writer.write_batch(rows.take(pa.array(order[start:end])).combine_chunks().to_batches()[0])
        self._runs.append(_SortedRun(pa.ipc.open_file(pa.OSFile(str(path))), numbers))

    def read(self, part: int) -> pa.Table:
        """All rows of one part, in the order in which they were added."""
        return pa.Table.from_batches([batch for run in self._runs for batch in run.batches(part)], self._schema).combine_chunks()

    def remove(self) -> None:
        """Deletes the runs."""
        self._runs.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)


@contextmanager
def spool(pool: Pool, schema: pa.Schema, budget_bytes: int) -> Iterator[Spool]:
    """A spool whose files are gone when the block ends."""
    made = Spool(pool, schema, budget_bytes)
    try:
        yield made
    finally:
        made.remove()
