"""Rows sorted into parts with bounded memory: files of neighbouring parts on disk, divided again until one fits.

Every row is written once for each level, and there are log(bytes / budget) / log(`FAN_OUT`) levels: one for 10 million rows, two for
5 billion. No batch of a file holds less than a `FAN_OUT`-th of the budget on average, so the work of a row never depends on
how many parts there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.store import Pool

FAN_OUT = 256  # files that are open at once
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4")
_PART = pa.field("part", pa.int64())


class Spool:
    """Takes rows of the parts `parts` in any mix, gives back each part's rows in the order in which they came."""

    def __init__(self, pool: Pool, schema: pa.Schema, parts: range, budget_bytes: int) -> None:
        self._pool, self._schema, self._parts, self._budget_bytes = pool, schema, parts, budget_bytes
        self._width = max(1, -(-len(parts) // FAN_OUT))  # parts of one file
        self._files: dict[int, _Neighbours] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def add(self, parts: npt.NDArray[np.int64], rows: pa.RecordBatch) -> None:
        """Adds rows with the part of each; writes them when the budget is reached."""
        self._take(pa.RecordBatch.from_arrays([pa.array(parts), *rows.columns], schema=pa.schema([_PART, *self._schema])))

    def flush(self) -> None:
        """Writes what waits in memory."""
        if not self._waiting:
            return
        rows, parts = _by_part(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        for number, piece in _pieces(rows, (parts - self._parts.start) // self._width):
            if number not in self._files:
                self._files[number] = _Neighbours(self._pool, rows.schema, self._parts[number * self._width :][: self._width])
            self._files[number].write(piece)

    def read(self) -> Iterator[tuple[int, pa.Table]]:
        """(part, its rows) of every part that has any, ascending; may be asked for again, and takes no more rows."""
        self.flush()
        for file in self._files.values():
            file.close()
        for _, file in sorted(self._files.items()):
            if len(file.parts) == 1:
                yield file.parts.start, pa.Table.from_batches(file.batches()).drop_columns([_PART.name])
            elif file.size_bytes <= self._budget_bytes:
                yield from _sorted(file)
            else:
                yield from self._divided(file)

    def remove(self) -> None:
        """Deletes the files."""
        for file in self._files.values():
            file.remove()

    def _take(self, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            self._waiting.append(rows)
            self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self._budget_bytes:
            self.flush()

    def _divided(self, file: _Neighbours) -> Iterator[tuple[int, pa.Table]]:
        with spool(self._pool, self._schema, file.parts, self._budget_bytes) as finer:
            for batch in file.batches():
                finer._take(batch)
            yield from finer.read()


class _Neighbours:
    """A file with the rows of some neighbouring parts."""

    def __init__(self, pool: Pool, schema: pa.Schema, parts: range) -> None:
        self.parts, self.size_bytes = parts, 0  # before they are compressed
        self._path = pool.temporary(".arrow")
        self._stream = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_stream(self._stream, schema, options=_WRITE)

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)
        self.size_bytes += rows.nbytes

    def close(self) -> None:
        if not self._stream.closed:
            self._writer.close()
            self._stream.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._path)) as stream, pa.ipc.open_stream(stream) as reader:
            yield from reader

    def remove(self) -> None:
        with suppress(OSError):  # the disk is full: what made the run stop is said already
            self.close()
        self._path.unlink(missing_ok=True)


def _sorted(file: _Neighbours) -> Iterator[tuple[int, pa.Table]]:
    rows, parts = _by_part(list(file.batches()))
    for part, piece in _pieces(rows, parts):
        yield part, piece.drop_columns([_PART.name])


def _by_part(batches: list[pa.RecordBatch]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rows in the order of their parts, and the part of each; rows of one part keep their order."""
    rows = pa.Table.from_batches(batches).combine_chunks()
    parts = rows.column(_PART.name).to_numpy()
    order = np.argsort(parts, kind="stable")
    return rows.take(pa.array(order)), parts[order]


def _pieces(rows: pa.Table, numbers: npt.NDArray[np.int64]) -> Iterator[tuple[int, pa.Table]]:
    """Runs of rows with one number, which ascend."""
    found, starts = np.unique(numbers, return_index=True)
    for number, start, end in zip(found.tolist(), starts, [*starts[1:], len(numbers)], strict=True):
        yield number, rows.slice(start, end - start)


@contextmanager
def spool(pool: Pool, schema: pa.Schema, parts: range, budget_bytes: int) -> Iterator[Spool]:
    """A spool whose files are gone when the block ends."""
    made = Spool(pool, schema, parts, budget_bytes)
    try:
        yield made
    finally:
        made.remove()
