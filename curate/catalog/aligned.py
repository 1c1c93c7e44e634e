"""An ordered answer of DuckDB, cut into the parts of a pool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BATCH_ROWS = 100_000


def in_parts(ordered: duckdb.DuckDBPyRelation) -> Iterator[tuple[int, pa.Table]]:
    """(part, its rows) of an answer that has a column `part` and is sorted by it; one part at a time is in memory."""
    waiting: list[pa.RecordBatch] = []
    for batch in ordered.to_arrow_reader(_BATCH_ROWS):
        for piece in _by_part(batch):
            if waiting and waiting[0]["part"][0] != piece["part"][0]:
                yield waiting[0]["part"][0].as_py(), pa.Table.from_batches(waiting)
                waiting = []
            waiting.append(piece)
    if waiting:
        yield waiting[0]["part"][0].as_py(), pa.Table.from_batches(waiting)


def _by_part(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in runs of one part."""
    for begin, end in runs(batch["part"].to_numpy()):
        yield batch.slice(begin, end - begin)


def runs(values: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """(begin, end) of each run of equal values."""
    if len(values):
        yield from itertools.pairwise([0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)])
