"""Stretches of a pool: runs of neighbouring parts in which tables lie beside each other, so that a join of them is no search.

Every table has a line for the same rows in the same order, or for fewer of them. Where the files of a table hold exactly the rows
of `rows`, which is checked value by value, line n of the one belongs to line n of the other (DuckDB's POSITIONAL JOIN: it reads
both in step, on one core for each stretch). Whatever lies otherwise is joined by its keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from curate.compact import FILE_ROWS, Source

_KEYS = ("part", "row")


@dataclass(frozen=True)
class Stretch:
    """Parts from `first` to `last`, `rows` rows, and the files that hold them: in `beside` those of tables that lie row by row."""

    number: int
    first: int
    last: int
    rows: int
    files: Mapping[str, tuple[Source, ...]]
    beside: frozenset[str] = frozenset()

    @property
    def view(self) -> str:
        """Name of the view that is `samples` for these parts."""
        return f"samples_{self.number}"


def stretches(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[Source]], shapes: Mapping[str, pa.Schema]
) -> list[Stretch]:
    """The pool cut into stretches of about as many rows as a compacted file has, the last one shorter; of the tables in `files`."""
    cut = {one.number: one for one in _cut(files)}
    fitting = {(one.number, name) for one in cut.values() for name in one.files if _fits(connection, one, name, shapes[name])}
    compared = [(cut[number], name) for number, name in sorted(fitting) if name != "rows" and (number, "rows") in fitting]
    found = fitting - _differing(connection, compared)
    return [replace(one, beside=frozenset(name for name in one.files if (one.number, name) in found)) for one in cut.values()]


def _cut(files: Mapping[str, Sequence[Source]]) -> Iterator[Stretch]:
    """Cuts where files of `rows` end."""
    waiting: list[Source] = []
    number = itertools.count()
    last = files["rows"][-1] if files.get("rows") else None
    for source in files.get("rows", ()):
        waiting.append(source)
        rows = sum(file.rows for one in waiting for file in one.members)
        if rows >= FILE_ROWS or source is last:
            low, high = waiting[0].members[0].part, waiting[-1].members[-1].part
            yield Stretch(next(number), low, high, rows, {name: tuple(_within(found, low, high)) for name, found in files.items()})
            waiting = []


def _within(found: Sequence[Source], low: int, high: int) -> Iterator[Source]:
    """Files that hold rows of these parts."""
    return (one for one in found if one.members[0].part <= high and one.members[-1].part >= low)


def _fits(connection: duckdb.DuckDBPyConnection, one: Stretch, name: str, shape: pa.Schema) -> bool:
    """Whether the table has as many rows in each of these parts, in files of no other part, with all its columns.

    Files from before it grew lack some.
    """
    files = one.files[name]
    if not files or _sizes(files) != _sizes(one.files["rows"]):
        return False
    return set(shape.names) <= {str(line[0]) for line in connection.execute(f"DESCRIBE FROM {reading(files)}").fetchall()}


def _sizes(files: Sequence[Source]) -> list[tuple[int, int]]:
    return [(file.part, file.rows) for one in files for file in one.members]


def _differing(connection: duckdb.DuckDBPyConnection, pairs: Sequence[tuple[Stretch, str]]) -> set[tuple[int, str]]:
    """Which of these tables have other keys than `rows` somewhere in the stretch."""
    asked = [
        f"SELECT {one.number} AS number, '{name}' AS name FROM {reading(one.files['rows'])} AS one"
        f" POSITIONAL JOIN {reading(one.files[name])} AS other"
        f" WHERE {' OR '.join(f'one.{key} IS DISTINCT FROM other.{key}' for key in _KEYS)}"
        for one, name in pairs
    ]
    if not asked:
        return set()
    return {
        (int(number), str(name)) for number, name in connection.execute(f"SELECT DISTINCT * FROM ({' UNION ALL '.join(asked)})").fetchall()
    }


def reading(files: Sequence[Source]) -> str:
    """SQL that reads these files; names of files hold no quotes but those of the folder, which are doubled."""
    listed = ", ".join("'" + str(one.path).replace("'", "''") + "'" for one in files)
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
