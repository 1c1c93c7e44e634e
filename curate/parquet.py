"""Parquet files of a pool are read the same way wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.objects import ObjectFile, ObjectPath, is_object, place


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of these columns, in that order; from an object store only their bytes and the footer are read."""
    names = None if columns is None else list(columns)
    if not is_object(path):
        return pq.read_table(path, columns=names, partitioning=None)
    table = open_file(path).read(names)
    return table if names is None else table.select(names)


def read_schema(path: str | Path) -> pa.Schema:
    """Names and types of the columns that the file has."""
    return open_file(path).schema_arrow if is_object(path) else pq.read_schema(path)


def read_columns(path: str | Path, names: Sequence[str]) -> pa.Table:
    """Those of the columns that a part's file has; one from before the table grew lacks some."""
    if is_object(path):
        file = open_file(path)
        present = set(file.schema_arrow.names)
        chosen = [name for name in names if name in present]
        return file.read(chosen).select(chosen)
    present = set(pq.read_schema(path).names)
    return pq.read_table(path, columns=[name for name in names if name in present], partitioning=None)


def open_file(path: str | Path) -> pq.ParquetFile:
    """The file for whoever wants batches, row groups or the footer."""
    if not is_object(path):
        return pq.ParquetFile(path)
    found = place(path)
    assert isinstance(found, ObjectPath)
    return pq.ParquetFile(ObjectFile(found), pre_buffer=True)
