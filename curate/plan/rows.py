"""A block of records becomes rows of the pool: mapped, typed, identified, and assigned to parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.plan.block import Block
from curate.plan.columns import FileNames
from curate.plan.identity import identify
from curate.plan.portable import convert, unreadable_texts
from curate.plan.sources import InputFile
from curate.plan.survey import Survey

FILLED_LATER = ("part", "row", "basis")
_DAMAGE = (pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError)


def rows_schema(survey: Survey) -> pa.Schema:
    """Columns of a row before it has its place in a part."""
    return pa.schema([field.remove_metadata() for field in survey.schema if field.name not in FILLED_LATER])


@dataclass(frozen=True)
class RowMaker:
    """Turns blocks of one file into rows; `fraction` of all url_ids is kept and spread over `parts` parts."""

    survey: Survey
    file: InputFile
    naming: FileNames
    parts: int
    fraction: float

    def make(self, block: Block) -> tuple[npt.NDArray[np.int64], pa.RecordBatch]:
        """Part numbers, and rows in `rows_schema`, of the sampled records of a block, in their order."""
        broken = block.broken.copy()
        typed = {name: self._typed(values, broken, self.survey.types[self.naming(name)]) for name, values in block.columns.items()}
        if broken.any():
            typed = {name: _without(values, broken) for name, values in typed.items()}
        meant = {meaning: self._meaning(typed, meaning, block.rows) for meaning in ("url", "caption", "label")}
        found = identify(
            meant["url"].to_pylist(), meant["caption"].to_pylist(), broken.tolist(), lambda at: self._place(block.first_row + at)
        )
        known = {
            **{self.naming(name): values for name, values in typed.items()},
            "sample_id": found.sample_ids(),
            "url_id": found.url_ids(),
            "url": pa.array(found.urls, pa.string()),
            "caption": meant["caption"],
            "label": meant["label"],
            "source_file": pa.repeat(pa.scalar(self.file.name), block.rows),
            "source_row": pa.array(np.arange(block.first_row, block.first_row + block.rows)),
            "reason": pa.array(found.reasons, pa.string()),
        }
        schema = rows_schema(self.survey)
        columns = [known[field.name] if field.name in known else pa.nulls(block.rows, field.type) for field in schema]
        wanted = found.sampled(self.fraction)
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        return (found.parts(self.parts), batch) if wanted.all() else (found.parts(self.parts)[wanted], batch.filter(pa.array(wanted)))

    def _place(self, row: int) -> bytes:
        return f"{self.file.name}\0{row}".encode()

    def _meaning(self, typed: dict[str, pa.Array], meaning: str, rows: int) -> pa.Array:
        column = self.survey.mapping.of(typed, meaning)
        return pa.nulls(rows, pa.string()) if column is None else convert(typed[column], pa.string())

    def _typed(self, values: pa.Array, broken: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
        """Values in the column's type; marks rows whose value is damaged as broken."""
        try:
            converted = convert(values, kind)
        except _DAMAGE:
            return pa.concat_arrays([_one(values.slice(at, 1), kind, broken, at) for at in range(len(values))])
        bad = unreadable_texts(converted)
        if not bad:
            return converted
        broken[bad] = True
        raw = converted.cast(pa.binary()).to_pylist()
        return pa.array([None if broken[at] or value is None else value.decode() for at, value in enumerate(raw)], pa.string())


def _one(value: pa.Array, kind: pa.DataType, broken: npt.NDArray[np.bool_], at: int) -> pa.Array:
    try:
        return convert(value, kind)
    except _DAMAGE:
        broken[at] = True
        return pa.nulls(1, kind)


def _without(values: pa.Array, broken: npt.NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(broken), pa.scalar(None, values.type), values)
