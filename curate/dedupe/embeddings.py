"""Stored embeddings of a pool, part by part, and as a column of lines that rounds send each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.dedupe import exchanges as ex
from curate.dedupe.tables import Inputs, line_up, names_of, read_table, with_image
from curate.embeddings import COLUMN, Stored, stored
from curate.errors import SchemaError, UsageError
from curate.stage import PartTask
from curate.store import Pool


@dataclass(frozen=True)
class Embedded:
    """Rows of one part that have an image and an embedding of it."""

    rows: int  # of the whole part
    names: dict[str, NDArray[Any]]  # place and sample_id, as columns
    score: NDArray[np.float64]  # NaN where there is none
    vectors: Stored


def read_embedded(task: PartTask, part: int, scores: str, score: str | None, dim: int) -> Embedded:
    """A part's embeddings of table `scores`; with the column `score`, if one is named."""
    pool = Pool.open(task.pool)
    rows, fetched = (
        read_table(task.inputs[f"rows/{part}"], ("row", "sample_id")),
        read_table(task.inputs[f"fetched/{part}"], ("row", "reason")),
    )
    told = read_table(task.inputs[f"{scores}/{part}"], ("row", COLUMN, *([score] if score else [])))
    line_up(part, rows, fetched)
    line_up(part, rows, told)
    both = stored(pool, told, part)
    if both is None:
        return Embedded(rows.num_rows, names_of(part, rows, pa.array([], pa.int64())), np.zeros(0), np.zeros((0, dim), np.float16))
    if both.shape[-1] != dim:
        shown = f"{len(both)} x {both.shape[-1]}, not {rows.num_rows} x {dim}"
        raise SchemaError(f"part {part}: embeddings of {scores} are {shown}: score the pool again")
    images = both[:, 0]
    shown = with_image(fetched).to_numpy()
    chosen = shown[_usable(images)[shown]]
    value = pc.cast(told.column(score), pa.float64()).to_numpy()[chosen] if score else np.full(len(chosen), np.nan)
    return Embedded(rows.num_rows, names_of(part, rows, pa.array(chosen)), value, images[chosen])


def _usable(images: Stored) -> NDArray[np.bool_]:
    """Rows without a score are zero."""
    return np.asarray((images != 0).any(axis=1) & np.isfinite(images).all(axis=1))


def score_column(inputs: Inputs, wanted: str) -> str:
    """The column that says which rows are best: the one named, else the table's only cosine of a CLIP model. Raises UsageError."""
    assert inputs.scores is not None
    present = {} if inputs.scores.schema is None else {field.name: field.type for field in inputs.scores.schema}
    offered = [wanted] if wanted else [name for name in present if name.startswith("clip_")]
    if len(offered) != 1 or not _is_number(present.get(offered[0], pa.null())):
        said = f"has no column of numbers {wanted!r}" if wanted else f"has {len(offered)} columns clip_…"
        raise UsageError(f"table {inputs.scores.table} {said}: say semantic.score= one of its columns")
    return offered[0]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


# -- as a column


def lines_of(names: dict[str, NDArray[Any]], more: dict[str, Any], vectors: Stored, wanted: Sequence[str]) -> pa.Table:
    """Lines of an exchange with a column `vector`."""
    columns = {**names, **more, "vector": ex.vector_column(vectors)}
    return pa.table({name: columns[name] for name in wanted})
