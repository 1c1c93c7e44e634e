"""A pool on disk or in an object store: Delta tables, content-named side files, commits that hold, and who may write.

    POOL/
      pool.json               format version
      tables/<name>/          one Delta table each; data files are <part>-<sha256>.parquet
      tars/ embeddings/ …     side files, named the same way, named in turn by columns of the tables
      fitted/                 arrays that were fitted on the pool, named in turn by documents
      documents/              small JSON documents, replaced atomically
      leases/                 who is writing which table
      tmp/                    files that are not published yet

Commits and the right to make them are in `curate.lease`: `with claim(pool, {table: schema}) as run: run.commit(table, files)`.

A file becomes visible in this order: write, fsync, rename to a name that holds its sha256, fsync of the folder, Delta
commit, fsync of the log. Nothing is ever changed in place, so a reader that pinned a version keeps reading it.

In an object store (`curate.objects`) the same names are objects: files are written to this machine's scratch folder,
uploaded, their size and checksums compared, and only then reported; a commit is a conditional put of the log entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from numpy.typing import NDArray

from curate import bucket
from curate import schema as schemas
from curate.errors import LocalFault, SchemaError, UsageError
from curate.objects import ObjectPath, place, scratch_of
from curate.parquet import read_columns
from curate.stage import PartFile

Answer = TypeVar("Answer")

FORMAT = 1
CURRENT = "current"
"""Name of the document that tells which policy and which CLIP column the pool's owner looks at."""
ROW_GROUP_ROWS = 122_880  # DuckDB reads a row group per thread and wants at least this many rows in one


@dataclass(frozen=True)
class Snapshot:
    """One pinned version of a table: its files do not change while you look."""

    table: str
    version: int  # -1: the table does not exist yet
    schema: pa.Schema | None
    files: tuple[PartFile, ...]
    folder: Path

    @cached_property
    def by_part(self) -> dict[int, PartFile]:
        """File of each part; tables with several files a part (`pairs_`, `shards`) show the last."""
        return {file.part: file for file in self.files}

    def paths(self) -> list[str]:
        """Absolute paths of the Parquet files, in part order."""
        return [str(self.folder / file.path) for file in self.files]

    def path_of(self, part: int) -> str:
        """Absolute path of one part's file."""
        return str(self.folder / self.by_part[part].path)

    def is_whole(self) -> bool:
        """Whether all files of this version are still there."""
        if isinstance(self.folder, ObjectPath):
            return {file.path for file in self.files} <= {path.name for path in self.folder.iterdir()}
        return all(os.path.exists(path) for path in self.paths())

    def read(self, columns: Sequence[str] | None = None, parts: Sequence[int] | None = None) -> pa.Table:
        """The rows in (part, row) order, all of them or those of some parts; memory grows with what is asked for."""
        if self.schema is None:
            raise UsageError(f"the pool has no table {self.table!r} yet")
        wanted = self.files if parts is None else [self.by_part[part] for part in parts]
        names = list(columns) if columns is not None else self.schema.names
        tables = [read_columns(self.folder / file.path, names) for file in wanted]
        empty = pa.schema([self.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *tables], promote_options="default")


class Pool:
    """The candidates and all that is known about them, in one directory or below one prefix of an object store.

    `scratch` is where unpublished files lie, always on this machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = scratch_of(path) if isinstance(path, ObjectPath) else path / "tmp"
        self._opened: dict[str, DeltaTable] = {}  # of an object store, so that a look at a table asks only for what is new

    @classmethod
    def create(cls, path: str | Path) -> Pool:
        """Opens the pool at `path`, making an empty one where nothing is; refuses a folder that holds other things."""
        folder = place(path)
        if (folder / "pool.json").exists():
            return cls.open(folder)
        if isinstance(folder, ObjectPath):
            return cls._begin(folder)
        if "%" in str(folder):  # delta-rs decodes percent signs in local paths and then finds nothing
            raise UsageError(f"{folder} has a percent sign in its path, which Delta readers take for an escape: name another folder")
        if set("*?") & set(str(folder)):  # DuckDB would read the files of every folder that matches
            raise UsageError(f"{folder} has a * or ? in its path, which DuckDB takes for a pattern: name another folder")
        if (
            folder.is_dir()
            and not all(_may_stand_in_a_new_pool(child.name) for child in folder.iterdir())
            and not (folder / "pool.json").exists()
        ):
            raise UsageError(f"{path} is not empty and not a pool: name a new folder")
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "pool.json", json.dumps({"format": FORMAT}).encode())  # first: with it, what else is missing is made
            for child in ("tables", "documents", "leases", "tmp"):
                (folder / child).mkdir(exist_ok=True)
        return cls(folder)

    @classmethod
    def _begin(cls, folder: ObjectPath) -> Pool:
        """An empty pool in an object store, unless somebody else made it at this moment."""
        if folder.is_dir():
            raise UsageError(f"{folder} is not empty and not a pool: name a new prefix")
        with contextlib.suppress(bucket.Conflict):
            bucket.put(folder.bucket, (folder / "pool.json").key, json.dumps({"format": FORMAT}).encode(), new=True)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> Pool:
        """Opens an existing pool; UsageError when there is none, or one of a newer curate."""
        folder = place(path)
        shown = folder if isinstance(folder, ObjectPath) else path
        try:
            found = json.loads((folder / "pool.json").read_text())["format"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(f"{shown} is no pool: make one with  curate run ingest --pool {shown} input.path=LIST") from None
        if found > FORMAT:
            raise UsageError(f"{shown} was written by a newer curate (pool format {found}, this one knows {FORMAT}): upgrade curate-vlm")
        return cls(folder)

    def require_disk(self, what: str) -> None:
        """Raises UsageError where the pool lies in an object store, for what has to rewrite or map files."""
        if isinstance(self.path, ObjectPath):
            raise UsageError(f"{what} does not work on a pool in an object store yet: copy {self.path} to a disk, and do it there")

    # -- tables

    def tables(self) -> list[str]:
        """Names of the tables that exist."""
        folder = self.path / "tables"
        if isinstance(folder, ObjectPath):
            return sorted(child.name for child in folder.iterdir() if child.name in self._opened or (child / "_delta_log").is_dir())
        return sorted(log.parent.name for log in folder.glob("*/_delta_log"))

    def table_folder(self, table: str) -> Path:
        """Folder of one table's log and data files."""
        return self.path / "tables" / table

    def delta(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The table as the Delta reader sees it, or None when it does not exist."""
        folder, options = str(self.table_folder(table)), self.storage_options
        if options is None and not DeltaTable.is_deltatable(folder):
            return None
        try:
            return self.ask(lambda: DeltaTable(folder, version=version, storage_options=options))
        except TableNotFoundError:
            return None

    def _newest(self, table: str) -> DeltaTable | None:
        if not isinstance(self.path, ObjectPath):
            return self.delta(table)
        known = self._opened.get(table)
        if known is not None:
            self.ask(known.update_incremental)
            return known
        found = self.delta(table)
        if found is not None:
            self._opened[table] = found
        return found

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What the Delta reader has to be told beside the address of a table."""
        return bucket.storage_options() if isinstance(self.path, ObjectPath) else None

    def ask(self, what: Callable[[], Answer]) -> Answer:
        """What delta-rs answers. Of an object store it is asked again where an answer broke off, which delta-rs itself does not do.

        Raises LocalFault without what delta-rs says: that may repeat what the request was signed with.
        """
        if not isinstance(self.path, ObjectPath):
            return what()
        for attempt in range(bucket.TRIES):
            with contextlib.suppress(OSError):
                return what()
            bucket.pause(attempt)
        raise LocalFault(f"{self.path}: the object store failed {bucket.TRIES} times; nothing is lost, run the same command again")

    def snapshot(self, table: str, version: int | None = None) -> Snapshot:
        """Pins the newest (or a given) version; a table that does not exist is an empty snapshot of version -1."""
        delta = self._newest(table) if version is None else self.delta(table, version)
        if delta is None:
            return Snapshot(table, -1, None, (), self.table_folder(table))
        files = sorted(_part_files(table, pa.table(delta.get_add_actions(flatten=True))), key=lambda file: (file.part, file.path))
        arrow = pa.schema(delta.schema().to_arrow())
        return Snapshot(table, delta.version(), _with_metadata(table, arrow), tuple(files), self.table_folder(table))

    def write_part(self, table: str, part: int, data: pa.Table, basis: str, schema: pa.Schema | None = None) -> PartFile:
        """Publishes one part's rows as a Parquet file, ready to be committed.

        `part` and `basis` are filled in; the rest must conform to `schema` (default: what `schemas/` says of the table).
        Equal values give an equal file name, whoever writes them.
        """
        schema = schema or schemas.table(table)
        full = data.drop_columns([name for name in ("part", "basis") if name in data.column_names])
        full = full.append_column("part", pa.repeat(pa.scalar(part, pa.int32()), full.num_rows))
        full = full.append_column("basis", pa.repeat(pa.scalar(basis), full.num_rows))
        full = schemas.conform(full, schema, f"table {table}, part {part}").replace_schema_metadata(None).combine_chunks()
        temporary = self.temporary(".parquet")
        with _disk_errors(self.scratch):
            pq.write_table(full, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS, store_schema=False)
        size_bytes = temporary.stat().st_size
        name = self.publish(temporary, f"tables/{table}", f"{part:05d}")
        return PartFile(table, part, Path(name).name, size_bytes, full.num_rows, basis)

    # -- files

    def temporary(self, suffix: str) -> Path:
        """A fresh path under tmp/ that nobody else will use; its name tells whose it is."""
        self._make_scratch()
        return self.scratch / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}{suffix}"

    def free_bytes(self) -> int:
        """Room on the disk on which unpublished files lie."""
        self._make_scratch()
        return shutil.disk_usage(self.scratch).free

    def _make_scratch(self) -> None:
        is_remote = isinstance(self.path, ObjectPath)
        with _disk_errors(self.scratch):
            self.scratch.mkdir(mode=0o700 if is_remote else 0o777, parents=is_remote, exist_ok=True)

    def publish(self, temporary: Path, folder: str, stem: str) -> str:
        """Moves a finished file to `folder/stem-<sha256><suffix>`, durably; returns that path relative to the pool."""
        target = self.path / folder
        with _disk_errors(self.path):
            sha256 = file_sha256(temporary)
            name = f"{stem}-{sha256}{temporary.suffix}"
            if isinstance(target, ObjectPath):
                bucket.upload(temporary, target.bucket, (target / name).key, sha256)
                temporary.unlink()
                return f"{folder}/{name}"
            target.mkdir(parents=True, exist_ok=True)
            sync_file(temporary)
            os.replace(temporary, target / name)
            sync_folder(target)
        return f"{folder}/{name}"

    def array(self, name: str) -> NDArray[Any]:
        """The array of a .npy file of the pool, mapped where it lies on a disk."""
        path = self.path / name
        stored: NDArray[Any] = np.load(io.BytesIO(path.read_bytes())) if isinstance(path, ObjectPath) else np.load(path, mmap_mode="r")
        return stored

    def write_document(self, name: str, content: Mapping[str, object]) -> None:
        """Replaces the JSON document `name` atomically."""
        folder = self.path / "documents"
        with _disk_errors(self.path):
            folder.mkdir(exist_ok=True)
            write_atomically(folder / f"{name}.json", json.dumps(content, indent=1, sort_keys=True).encode())

    def read_document(self, name: str) -> dict[str, object] | None:
        """The JSON document `name`, or None when it was never written."""
        try:
            found = json.loads((self.path / "documents" / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return dict(found)


def _may_stand_in_a_new_pool(name: str) -> bool:
    """What an earlier call that was killed may have left."""
    return name in ("tmp", "pool.json") or name.startswith(".pool.json.")


# -- durable small things


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Forces a file's bytes to the disk; an error means that the file must be written anew."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Forces a folder's names to the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replaces a small file so that nobody sees half of it, and waits for the disk where it must outlive a power cut.

    Its folder must exist.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    temporary.write_bytes(content)
    if durable:
        sync_file(temporary)
    os.replace(temporary, path)
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """A full or broken disk is this machine's fault and stops the run; it never fails a row."""
    try:
        yield
    except OSError as error:
        raise LocalFault(f"cannot write to {path}: {error.strerror or error}; nothing is lost, run the same command again") from error


# -- Delta's view of a part file


def add_statistics(file: PartFile) -> str:
    """Statistics for the Delta log: they carry `basis`, so that a driver knows what is done without opening files."""
    bounds = {"part": file.part, "basis": file.basis}
    return json.dumps({"numRecords": file.rows, "minValues": bounds, "maxValues": bounds, "nullCount": {"part": 0, "basis": 0}})


def _part_files(table: str, adds: pa.Table) -> Iterator[PartFile]:
    """One for each line of Delta's listing; column by column, since half a million lines are usual."""
    names = [name for name in ("path", "size_bytes", "num_records", "min.basis") if name in adds.column_names]
    columns = {name: adds.column(name).to_pylist() for name in names}
    basis = columns.get("min.basis") or [""] * len(adds)
    for path, size_bytes, rows, of in zip(columns["path"], columns["size_bytes"], columns.get("num_records", ()), basis, strict=True):
        try:
            part = int(path.split("-", 1)[0])
        except ValueError:
            raise SchemaError(f"table {table}: {path!r} was not written by curate") from None
        yield PartFile(table, part, path, size_bytes, rows, of or "")


def _with_metadata(table: str, arrow: pa.Schema) -> pa.Schema:
    """Gives a schema that was read back its comments again, and plain Arrow types."""
    known = schemas.table(table)
    return pa.schema([known.field(f.name) if f.name in known.names else pa.field(f.name, _plain(f.type)) for f in arrow])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain(f.type)) for f in kind])
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind
