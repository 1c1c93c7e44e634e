"""Tables as `schemas/*.sql` declares them, as Arrow schemas; the one place that checks that data conforms."""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path

import duckdb
import pyarrow as pa

from curate.errors import SchemaError

KEY = ("part", "row")
SOURCE_PREFIX = "source."
CLASSES = ("content", "scores", "placement", "telemetry", "lineage")


def resources(folder: str) -> Path:
    """Folder of shipped files (`conf`, `schemas` or `pipelines`): inside the wheel, or beside `curate/` in a checkout."""
    shipped = Path(__file__).parent / folder
    return shipped if shipped.is_dir() else shipped.parent.parent / folder


@functools.cache
def table(name: str) -> pa.Schema:
    """Arrow schema of table `name`; `scores_x`, `groups_x`, `decisions_x` and `pairs_x` have their family's schema.

    Each field's metadata holds its comment and, under `class`, what a digest makes of it: content, scores, placement,
    telemetry or lineage.
    """
    family = name if (resources("schemas") / f"{name}.sql").exists() else name.split("_", 1)[0]
    path = resources("schemas") / f"{family}.sql"
    if not path.exists():
        raise SchemaError(f"no table {name!r}; there are {', '.join(families())}")
    with duckdb.connect() as connection:
        connection.execute(path.read_text())
        schema = connection.sql(f'SELECT * FROM "{family}"').to_arrow_table().schema
        comments = dict(connection.execute("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ?", [family]).fetchall())
    return pa.schema([_documented(pa.field(field.name, _plain(field.type)), comments[field.name]) for field in schema])


def families() -> list[str]:
    """Names of all table families that `schemas/` declares."""
    return sorted(path.stem for path in resources("schemas").glob("*.sql"))


def column_class(field: pa.Field) -> str:
    """Digest class of a column; of those that no schema file names, `clip_…` are scores and the others content."""
    said = (field.metadata or {}).get(b"class")
    return said.decode() if said else "scores" if field.name.startswith("clip_") else "content"


def conform(data: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """`data` with exactly the columns of `schema`, in order and cast; missing nullable columns become null.

    Raises SchemaError naming the column, what was wanted and what was found.
    """
    extra = [name for name in data.column_names if name not in schema.names]
    if extra:
        raise SchemaError(f"{where}: unexpected column {extra[0]!r}{nearest(extra[0], schema.names)}")
    columns = []
    for field in schema:
        if field.name not in data.column_names:
            if not field.nullable:
                raise SchemaError(f"{where}: column {field.name!r} ({field.type}) is missing")
            columns.append(pa.nulls(data.num_rows, field.type))
            continue
        columns.append(_cast(data.column(field.name), field, where))
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    try:
        cast = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"{where}: column {field.name!r} should be {field.type}, found {column.type}: {error}") from None
    if not field.nullable and cast.null_count:
        raise SchemaError(f"{where}: column {field.name!r} has {cast.null_count} nulls and may have none")
    return cast


def portable(kind: pa.DataType) -> bool:
    """Whether every engine reads this type back as it was written: bool, int32/64, float32/64, string, binary,
    timestamp(us, UTC), and lists and structs of these."""
    if pa.types.is_list(kind):
        return portable(kind.value_type)
    if pa.types.is_struct(kind):
        return all(portable(field.type) for field in kind)
    return kind in _PORTABLE


_PORTABLE = {
    pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.timestamp("us", "UTC"),
}  # fmt: skip


def nearest(name: str, known: list[str]) -> str:
    """A clause that offers the nearest known name, or nothing; for the end of an error line."""
    match = difflib.get_close_matches(name, known, 1, 0.6) or [k for k in known if k.lower() == name.lower()]
    return f"; did you mean {match[0]!r}?" if match else ""


def _plain(kind: pa.DataType) -> pa.DataType:
    """DuckDB names list items its own way and gives timestamps the session's zone; the pool has one form of each."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    return kind


def _documented(field: pa.Field, comment: str) -> pa.Field:
    found = re.match(r"\[(\w+)\] ", comment or "")
    if not found or found.group(1) not in CLASSES:
        raise SchemaError(f"schemas: column {field.name!r} needs a comment that starts with one of {CLASSES}")
    nullable = field.name not in ("part", "row", "other_part", "other_row")
    return field.with_nullable(nullable).with_metadata({"class": found.group(1), "comment": comment[found.end() :]})
