"""Digests of what a pool holds: two lines that are equal when two pools hold equal values, however they came to be.

Taken over column *values* in (part, row) order, column by column, so file layout, row groups, dictionaries and chunks do
not matter. Which columns count, and in which line, is said in `schemas/`: content, scores; placement, telemetry and
lineage are left out. Columns that hold only nulls are left out too, so that a schema may grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import AccountingError
from curate.media.tar import TarError, read
from curate.parquet import read_columns
from curate.schema import KEY, column_class
from curate.store import Pool, Snapshot

LINES = ("content", "scores")
_LEFT_OUT = ("telemetry", "evaluations", "signals", "consumed", "robots")
_SORT = {"pairs": ("part", "row", "other_part", "other_row"), "shards": ("part", "row", "subset")}


def digest(pool: Pool, policy: str | None = None) -> dict[str, str]:
    """`{"content": …, "scores": …}`, 64 hex digits each; one part is in memory at a time.

    `content` covers ids, captions, bytes, hashes, groups, decisions and packed samples; `scores` what models said. With
    `policy`, other policies' decisions and shards are left out. Raises AccountingError when a packed tar is damaged.
    """
    totals = {line: hashlib.sha256() for line in LINES}
    for name in pool.tables():
        if _counts(name, policy):
            for column, line, value in _table_digests(pool.snapshot(name), policy):
                totals[line].update(f"{name}/{column}={value}\n".encode())
    for tar_file, value in _tar_digests(pool, policy):
        totals["content"].update(f"{tar_file}={value}\n".encode())
    return {line: total.hexdigest() for line, total in totals.items()}


def _family(table: str) -> str:
    return table.split("_", 1)[0]


def _counts(table: str, policy: str | None) -> bool:
    if _family(table) in _LEFT_OUT:
        return False
    return policy is None or _family(table) != "decisions" or table in (f"decisions_{policy}", "decisions_prefilter")


# -- tables


def _table_digests(snapshot: Snapshot, policy: str | None) -> Iterator[tuple[str, str, str]]:
    """(column, line, digest) of every column that counts and holds a value; the keys always count."""
    fields = [field for field in snapshot.schema or () if _line(snapshot.table, field) in LINES]
    columns = {field.name: ColumnDigest() for field in fields}
    for part in _parts(snapshot, [field.name for field in fields]):
        kept = part.filter(pc.equal(part["subset"], policy)) if policy is not None and snapshot.table == "shards" else part
        for name, column in columns.items():
            column.update(kept.column(name))
    for field in fields:
        if field.name in KEY or columns[field.name].has_values:
            yield field.name, _line(snapshot.table, field), columns[field.name].hexdigest()


def _line(table: str, field: pa.Field) -> str:
    """Where a column counts; columns that `schemas/` does not name are what a model said, or what the input list said."""
    if field.name in KEY:
        return "content"
    return "scores" if not field.metadata and _family(table) == "scores" else column_class(field)


def _parts(snapshot: Snapshot, columns: list[str]) -> Iterator[pa.Table]:
    """The table's rows, part by part, in the order of its keys."""
    keys = _SORT.get(_family(snapshot.table), KEY)
    folder = snapshot.folder
    for paths in _paths_by_part(snapshot):
        read = [_read(folder / path, columns, snapshot.schema) for path in paths]
        yield pa.concat_tables(read).sort_by([(key, "ascending") for key in keys])


def _paths_by_part(snapshot: Snapshot) -> list[list[str]]:
    parts: dict[int, list[str]] = {}
    for file in snapshot.files:
        parts.setdefault(file.part, []).append(file.path)
    return list(parts.values())


def _read(path: Path, columns: list[str], schema: pa.Schema | None) -> pa.Table:
    data = read_columns(path, columns)
    present = data.column_names
    wanted = pa.schema([pa.field(name, (schema or data.schema).field(name).type) for name in columns])
    return pa.table([data[f.name].cast(f.type) if f.name in present else pa.nulls(data.num_rows, f.type) for f in wanted], schema=wanted)


class ColumnDigest:
    """sha256 over the values of a column that comes in pieces; where it is cut does not matter.

    Each kind of value feeds streams that can simply be joined: validity and number; length and bytes; validity and
    children. Null differs from empty and from zero; -0.0 equals 0.0, every NaN equals every other.
    """

    def __init__(self) -> None:
        self._streams: dict[str, hashlib._Hash] = {}
        self.has_values = False

    def update(self, column: pa.ChunkedArray) -> None:
        """Feeds the next piece."""
        for chunk in column.chunks:
            self.has_values |= chunk.null_count < len(chunk)
            self._feed("", chunk)

    def hexdigest(self) -> str:
        """Of all that was fed."""
        total = hashlib.sha256()
        for path in sorted(self._streams):
            total.update(f"{path}={self._streams[path].hexdigest()}\n".encode())
        return total.hexdigest()

    def _stream(self, path: str, data: bytes | memoryview) -> None:
        self._streams.setdefault(path, hashlib.sha256()).update(data)

    def _feed(self, path: str, values: pa.Array) -> None:
        kind = values.type
        if pa.types.is_struct(kind):
            self._stream(f"{path}?", _validity(values))
            for number, field in enumerate(kind):
                self._feed(f"{path}.{field.name}", pc.struct_field(values, number))
        elif pa.types.is_list(kind):
            self._stream(f"{path}#", _int64(pc.list_value_length(values)))
            self._feed(f"{path}[]", pc.list_flatten(values))
        elif pa.types.is_string(kind) or pa.types.is_binary(kind):
            self._stream(f"{path}#", _int64(pc.binary_length(values)))
            self._stream(path, joined(values))
        else:
            self._stream(f"{path}?", _validity(values))
            self._stream(path, _numbers(values))


def _validity(values: pa.Array) -> bytes:
    return bytes(pc.is_valid(values).cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())


def _int64(lengths: pa.Array) -> bytes:
    """Lengths, -1 for null."""
    return bytes(pc.fill_null(lengths.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).astype("<i8").tobytes())


def joined(values: pa.Array) -> bytes:
    """All bytes one after another."""
    filled = pc.fill_null(values.cast(pa.large_binary()), b"")
    if not len(filled):
        return b""
    offsets = np.frombuffer(filled.buffers()[1], np.int64, len(filled) + 1, filled.offset * 8)
    data = filled.buffers()[2]
    return bytes(memoryview(data)[offsets[0] : offsets[-1]]) if data is not None else b""


def _numbers(values: pa.Array) -> bytes:
    """Each value in eight bytes, zero for null."""
    if pa.types.is_null(values.type):
        return bytes(8 * len(values))
    if pa.types.is_floating(values.type):
        numbers = pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False) + 0.0
        return bytes(np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").tobytes())
    whole = values.cast(pa.uint8()) if pa.types.is_boolean(values.type) else values
    return bytes(pc.fill_null(whole.cast(pa.int64()), 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes())


# -- packed tars


def _tar_digests(pool: Pool, policy: str | None) -> Iterator[tuple[str, str]]:
    """(tar, digest of its members in order) of every packed shard."""
    for folder in sorted((pool.path / "shards").glob("*")):
        if folder.is_dir() and policy in (None, folder.name):
            for path in sorted(folder.glob("*.tar")):
                yield f"{folder.name}/{path.name}", _tar_digest(path)


def _tar_digest(path: Path) -> str:
    """Of names and bytes; of the `.json` members the names only, since they repeat columns, scores among them."""
    total = hashlib.sha256()
    try:
        for name, data in read(path):
            body = b"" if name.endswith(".json") else data
            total.update(f"{name}:{hashlib.sha256(body).hexdigest()}\n".encode())
    except TarError as error:
        raise AccountingError(f"shards/{path.parent.name}: {error}") from None
    return total.hexdigest()


def text(lines: Mapping[str, str]) -> str:
    """The two lines as they are printed."""
    return "".join(f"{name:<8} {value}\n" for name, value in lines.items())
