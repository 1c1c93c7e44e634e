"""Stored embeddings: where a table of scores names them, how many dimensions they have, and at length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.errors import SchemaError, UsageError
from curate.parquet import read_columns
from curate.store import Pool, Snapshot

Stored = NDArray[np.float16]
"""As they are stored, of about unit length: (rows, 2, dim), image first and text second, or one side of it."""
Unit = NDArray[np.float32]
"""(n, dim), each line of length 1."""

COLUMN = "embedding_file"


def stored(pool: Pool, told: pa.Table, part: int) -> Stored | None:
    """The part's array (rows, 2, dim), as column `embedding_file` of its lines names it; None when no row has an embedding.

    Lines of rows without a score are zero. Raises SchemaError when several files are named, or there are not as many lines as rows.
    """
    names = told.column(COLUMN).drop_null().unique().to_pylist()
    if not names:
        return None
    if len(names) > 1:
        raise SchemaError(f"part {part}: its embeddings lie in {len(names)} files, not in one: run  curate verify")
    found: Stored = pool.array(names[0])
    if len(found) != len(told):
        raise SchemaError(f"part {part}: {len(found)} embeddings for {len(told)} rows: run  curate verify")
    return found


def dimension(pool: Pool, scores: Snapshot) -> int:
    """Of the table's embeddings. Raises UsageError when no row has one."""
    for part in scores.by_part:
        found = stored(pool, read_columns(scores.path_of(part), [COLUMN]), part)
        if found is not None:
            return int(found.shape[-1])
    raise UsageError(f"no row of {scores.table} has an embedding yet: score the pool with a CLIP model first")


def units(vectors: NDArray[np.floating[Any]]) -> Unit:
    """The vectors (…, dim) at length 1, lengths summed up in 64 bits; what has no direction stays zero."""
    wide = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("...j,...j->...", wide, wide, dtype=np.float64))
    return np.asarray(wide / np.maximum(lengths, 1e-12)[..., None].astype(np.float32), np.float32)
