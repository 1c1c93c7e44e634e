"""The first look at a list: how many rows, which columns mean what, and one type per column over all files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curate import schema as schemas
from curate.errors import InputError
from curate.plan.block import Block
from curate.plan.columnar import parquet_types
from curate.plan.columns import ColumnMapping, FileNames, Names, detect, require
from curate.plan.portable import TextShape, common_type, portable_type, settled
from curate.plan.readers import read_blocks
from curate.plan.settings import InputSettings
from curate.plan.sources import InputFile, find_files
from curate.progress import Progress, Silent
from curate.schema import SOURCE_PREFIX

TASK = "plan: count"


@dataclass(frozen=True)
class Survey:
    """What is known of a list before it is cut into parts; `types` has the pool's name and type of each input column."""

    files: tuple[InputFile, ...]
    rows: int
    mapping: ColumnMapping
    names: Names
    types: Mapping[str, pa.DataType]

    @property
    def schema(self) -> pa.Schema:
        """Schema of the table `rows`: the declared columns, then every input column as `source.<name>`."""
        meaning = b"an input column, as the list had it"
        extra = [pa.field(name, kind, metadata={b"class": b"content", b"comment": meaning}) for name, kind in self.types.items()]
        return pa.schema([*schemas.table("rows"), *extra])


def survey(
    settings: InputSettings,
    progress: Progress | None = None,
    files: Sequence[InputFile] | None = None,
    known: Mapping[str, pa.DataType] | None = None,
) -> Survey:
    """Looks at every file of a list once: Parquet footers only, other files whole, in bounded memory.

    `known` are the input columns that the pool has from other lists: a column of this list by one of these names keeps
    the type that it has there. Raises InputError naming the file (and column) that cannot be used, or when the list has
    no rows.
    """
    progress = progress or Silent()
    files = tuple(files if files is not None else find_files(settings))
    tally = _Tally(settings, known or {})
    progress.start(TASK, None, "rows")
    for file in files:
        before = tally.rows
        tally.add(file)
        progress.advance(TASK, tally.rows - before, file=file.name)
    progress.finish(TASK)
    if tally.mapping is None or tally.names is None or not tally.rows:
        found = f"none of its {tally.rows} records can be read: check input.format" if tally.rows else "there are no rows in it"
        raise InputError(f"{files[0].name}{f' and {len(files) - 1} more' if len(files) > 1 else ''}: {found}")
    return Survey(files, tally.rows, tally.mapping, tally.names, tally.types())


@dataclass
class _Tally:
    """Rows, names and types seen so far."""

    settings: InputSettings
    known: Mapping[str, pa.DataType]
    rows: int = 0
    mapping: ColumnMapping | None = None
    names: Names | None = None
    kinds: dict[str, pa.DataType] = field(default_factory=dict)
    shapes: dict[str, TextShape] = field(default_factory=dict)

    def add(self, file: InputFile) -> None:
        if file.format == "parquet":
            types, rows = parquet_types(file)
            naming = self._start(file, list(types), None)
            for name, kind in types.items():
                self._see(naming(name), kind)
            self.rows += rows
            return
        named: FileNames | None = None
        for block in read_blocks(file, self.settings):
            self.rows += block.rows
            if named is None and block.columns:
                named = self._start(file, list(block.columns), block.layout)
            if named is not None:
                self._see_block(named, block)

    def _start(self, file: InputFile, columns: list[str], layout: str | None) -> FileNames:
        if self.mapping is None or self.names is None:
            self.mapping = detect(file.name, columns, layout, self.settings)
            self.names = Names(self.mapping, self.known)
        require(file.name, columns, self.mapping)
        return self.names.of_file()

    def _see_block(self, named: FileNames, block: Block) -> None:
        for name, values in block.columns.items():
            pool_name = named(name)
            if block.is_text:
                self.kinds.setdefault(pool_name, pa.null())
                before = self.shapes.get(pool_name, TextShape())
                self.shapes[pool_name] = before | TextShape.of(values, before)
            else:
                self._see(pool_name, portable_type(values.type))

    def _see(self, pool_name: str, kind: pa.DataType) -> None:
        self.kinds[pool_name] = common_type(self.kinds.get(pool_name, pa.null()), kind)

    def types(self) -> dict[str, pa.DataType]:
        """One type per column: what typed files say and what texts allow, joined."""
        nothing = TextShape()
        return {name: self._held(name, common_type(kind, self.shapes.get(name, nothing).type)) for name, kind in self.kinds.items()}

    def _held(self, name: str, kind: pa.DataType) -> pa.DataType:
        """The type in which the pool holds a column. Raises InputError when it cannot hold these values."""
        had = self.known.get(name)
        if had is None:
            return settled(kind)
        if common_type(had, kind) != had:
            bare = name.removeprefix(SOURCE_PREFIX)
            raise InputError(
                f"column {bare!r} of this list is {kind}, and {name} of the pool is {had}: convert it, "
                f"or keep it under another name with  columns.{bare}_2={bare}"
            )
        return had
