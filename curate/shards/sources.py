"""Where a subset's samples come from: the tables at the versions that it pins, and the part tars."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from curate import bucket
from curate.errors import AccountingError
from curate.objects import ObjectPath
from curate.shards.subset import Subset
from curate.store import Pool, Snapshot

ROWS = ("sample_id", "url", "caption", "captions", "label")
FETCHED = (
    "original_width", "original_height", "original_format", "original_bytes", "width", "height", "format", "image_bytes",
    "sha256", "image_sha256", "tar_file", "tar_offset", "tar_size",
)  # fmt: skip
_NOT_SCORES = frozenset({"part", "row", "basis", "reason", "embedding_file"})
_OPEN_TARS = 64
_REQUESTS = 16  # to an object store at once
Member = tuple[str, int, int, str | None]  # tar, offset and size in it, sha256


class Sources:
    """The kept rows of a subset, part by part."""

    def __init__(self, pool: Pool, subset: Subset) -> None:
        self.subset = subset
        self.decisions = pool.snapshot(f"decisions_{subset.name}", subset.decisions_version)
        self.tables = {name: pool.snapshot(name, version) for name, version in subset.tables.items()}
        self.parts = sorted(self.decisions.by_part)

    def score_columns(self) -> dict[str, list[str]]:
        """Score columns by table; of two with one name the first table's stands, as in the view `samples`."""
        taken: set[str] = {*ROWS, *FETCHED, *_NOT_SCORES}
        found: dict[str, list[str]] = {}
        for name in sorted(self.tables):
            schema = self.tables[name].schema
            if name.startswith("scores_") and schema is not None:
                found[name] = [column for column in schema.names if column not in taken]
                taken.update(found[name])
        return found

    def identity(self) -> list[str]:
        """Names of all files that are read; they hold their contents' hashes."""
        tables = [self.tables["rows"], self.tables["fetched"], *(self.tables[name] for name in self.score_columns()), self.decisions]
        return [f"{table.table}/{file.path}" for table in tables for file in table.files]

    def kept(self, part: int, columns: Mapping[str, Sequence[str]]) -> pa.Table:
        """Columns of the part's kept rows, in row order, with `part` and `row`. Raises AccountingError when tables are not aligned."""
        verdicts = self.decisions.read(["part", "row", "keep"], [part])
        mask, found = pc.fill_null(verdicts["keep"], False), verdicts.select(["part", "row"])
        for name, names in columns.items():
            data = _aligned(self.tables[name], part, names, verdicts)
            for column in names:
                found = found.append_column(data.schema.field(column).remove_metadata(), data[column])
        return found.filter(mask)


def _aligned(table: Snapshot, part: int, names: Sequence[str], verdicts: pa.Table) -> pa.Table:
    if part not in table.by_part:  # a scorer that has not come to this part
        assert table.schema is not None
        schema = pa.schema([table.schema.field(name) for name in names])
        return pa.Table.from_arrays([pa.nulls(verdicts.num_rows, field.type) for field in schema], schema=schema)
    data = table.read(["row", *names], [part])
    if not data["row"].equals(verdicts["row"]):
        raise AccountingError(f"table {table.table} does not have the rows of the decisions in part {part}: score or fetch again")
    return data


class Tars:
    """Reads images out of tars by offset; keeps some tars open, never extracts anything."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes all tars."""
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, tar_file: str, offset: int, size: int, sha256: str | None = None) -> bytes:
        """Bytes of one member; with `sha256` they are checked. Raises AccountingError naming the tar."""
        data = self._bytes(tar_file, offset, size)
        if len(data) != size:
            raise AccountingError(f"{tar_file} ends before byte {offset + size}")
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise AccountingError(f"{tar_file}: the {size} bytes at {offset} are not those that were fetched (sha256 differs)")
        return data

    def ahead(self, members: Sequence[Member]) -> Iterator[bytes]:
        """Bytes of many members, checked, in order; from an object store many are asked for at once."""
        if not isinstance(self._root, ObjectPath):
            yield from (self.read(*member) for member in members)
            return
        with ThreadPoolExecutor(_REQUESTS, "read") as hands:
            for begin in range(0, len(members), 4 * _REQUESTS):
                yield from hands.map(lambda member: self.read(*member), members[begin : begin + 4 * _REQUESTS])

    def _bytes(self, tar_file: str, offset: int, size: int) -> bytes:
        if not isinstance(self._root, ObjectPath):
            return os.pread(self._descriptor(tar_file), size, offset)
        path = self._root / _inside(tar_file)
        try:
            return bucket.get(path.bucket, path.key, f"{offset}-{offset + size - 1}").data
        except FileNotFoundError:
            raise AccountingError(f"{tar_file} cannot be opened: there is no such object") from None

    def _descriptor(self, tar_file: str) -> int:
        if tar_file in self._open:
            self._open.move_to_end(tar_file)
            return self._open[tar_file]
        path = _inside(tar_file)
        try:
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise AccountingError(f"{tar_file} cannot be opened: {error.strerror}") from None
        self._open[tar_file] = descriptor
        if len(self._open) > _OPEN_TARS:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


def _inside(tar_file: str) -> PurePosixPath:
    path = PurePosixPath(tar_file)
    if path.is_absolute() or ".." in path.parts:
        raise AccountingError(f"{tar_file!r} is not a path inside the pool")
    return path
