"""Reader of Parquet lists: row groups are streamed, and a damaged one still counts the rows that the footer promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import InputError
from curate.plan.block import Block, broken_block, unique_names
from curate.plan.portable import portable_type
from curate.plan.sources import InputFile

BATCH_ROWS = 8192
_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)


@contextmanager
def _opened(file: InputFile) -> Iterator[pq.ParquetFile]:
    with file.seekable() as stream:
        try:
            parquet = pq.ParquetFile(stream)
        except _DAMAGE as error:
            line = str(error).splitlines()[0]
            raise InputError(f"{file.name}: no readable Parquet footer ({line}): repair the file, or take it out of input.path") from error
        yield parquet


def parquet_types(file: InputFile) -> tuple[dict[str, pa.DataType], int]:
    """Portable type of each column, and the number of rows, from the footer alone."""
    with _opened(file) as parquet:
        huge = _huge_unsigned(parquet)
        kinds = [pa.string() if field.name in huge else portable_type(field.type) for field in parquet.schema_arrow]
        return dict(zip(unique_names(parquet.schema_arrow.names), kinds, strict=True)), parquet.metadata.num_rows


def _huge_unsigned(parquet: pq.ParquetFile) -> set[str]:
    """Columns of unsigned 64-bit integers that may not fit a signed one: statistics say so, or say nothing."""
    wide = {field.name for field in parquet.schema_arrow if field.type == pa.uint64()}
    return {name for name in wide if not _fits(parquet, name)}


def _fits(parquet: pq.ParquetFile, name: str) -> bool:
    position = [parquet.metadata.schema.column(at).path for at in range(parquet.metadata.num_columns)].index(name)
    chunks = [parquet.metadata.row_group(at).column(position).statistics for at in range(parquet.num_row_groups)]
    return all(found is not None and found.has_min_max and found.max < 1 << 63 for found in chunks)


def read_parquet(file: InputFile) -> Iterator[Block]:
    """Blocks of a Parquet file; the rows of a damaged row group that cannot be read come out as broken."""
    with _opened(file) as parquet:
        first_row = 0
        for group in range(parquet.num_row_groups):
            promised = first_row + parquet.metadata.row_group(group).num_rows
            for block in _group_blocks(parquet, group, first_row, promised):
                yield block
                first_row += block.rows
            if first_row < promised:
                yield broken_block(first_row, promised - first_row)
                first_row = promised


def _group_blocks(parquet: pq.ParquetFile, group: int, first_row: int, promised: int) -> Iterator[Block]:
    """Blocks of one row group, up to the first damage."""
    try:
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
            usable = batch.slice(0, promised - first_row)
            columns = dict(zip(unique_names(batch.schema.names), usable.columns, strict=True))
            yield Block(first_row, columns, np.zeros(usable.num_rows, dtype=np.bool_))
            first_row += usable.num_rows
    except _DAMAGE:
        return
