"""The phase that derives scores: it reads one part's embeddings once, and writes one part of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate import schema as schemas
from curate.derive.measure import Derived, Measure, spread
from curate.derive.vectors import Vectors, read_part
from curate.parquet import read_table
from curate.stage import PartReport, PartTask, Resources, fingerprint
from curate.store import Pool

VERSION = 1


@dataclass(frozen=True)
class DerivePhase:
    """`Phase` that writes `scores_<target>` from the embeddings of table `source`; see `curate.stage.Phase`."""

    target: str
    source: str
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        """For example derive_normsim."""
        return f"derive_{self.target}"

    @property
    def table(self) -> str:
        """For example scores_normsim."""
        return f"scores_{self.target}"

    @property
    def inputs(self) -> Sequence[str]:
        """The table that names the embeddings."""
        return (self.source,)

    @property
    def resources(self) -> Resources:
        """One part's vectors and blocks of what they are compared with."""
        return Resources(memory_bytes=1 << 30)

    @property
    def schema(self) -> pa.Schema:
        """Keys, reason, the measures' columns, basis."""
        base = schemas.table("scores")
        added = [column for measure in self.measures for column in measure.adds]
        return pa.schema([*(base.field(name) for name in ("part", "row", "reason")), *added, base.field("basis")])

    def identity(self) -> str:
        """Of the measures, and of the table whose embeddings they read."""
        return fingerprint("derive", str(VERSION), self.source, *(measure.identity() for measure in self.measures))

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        """Reads what parts are compared with; yields the function that does one part."""
        opened = [measure.open() for measure in self.measures]
        yield lambda task: self._part(opened, task)

    def _part(self, opened: Sequence[Derived], task: PartTask) -> PartReport:
        pool = Pool.open(task.pool)
        vectors = read_part(pool, task.part, task.inputs[self.source])
        columns = {"row": read_table(task.inputs[self.source], ["row"])["row"], "reason": pa.nulls(vectors.rows, pa.string())}
        for measure, derive in zip(self.measures, opened, strict=True):
            columns |= _columns(measure, derive, vectors)
        file = pool.write_part(self.table, task.part, pa.table(columns), task.basis, self.schema)
        done = len(vectors.place)
        return PartReport(task.part, (file,), {"ok": done}, {"embeddings": done})


def _columns(measure: Measure, derive: Derived, vectors: Vectors) -> dict[str, pa.Array]:
    fields = list(measure.adds)
    values = derive(vectors) if len(vectors.place) else [np.zeros(0, field.type.to_pandas_dtype()) for field in fields]
    return {field.name: spread(each, vectors.place, vectors.rows, field.type) for field, each in zip(fields, values, strict=True)}
