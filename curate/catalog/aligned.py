"""An ordered answer of DuckDB, cut into the parts of a pool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa

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
    if not batch.num_rows:
        return
    parts = batch["part"].to_numpy()
    borders = [0, *(np.flatnonzero(parts[1:] != parts[:-1]) + 1).tolist(), len(parts)]
    for begin, end in itertools.pairwise(borders):
        yield batch.slice(begin, end - begin)
