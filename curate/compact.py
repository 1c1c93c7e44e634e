"""Copies of tables in few large files, for whoever reads whole tables: SQL on a pool of many parts opens thousands of files less.

A copy holds the rows of a run of neighbouring parts, in (part, row) order, and lies beside the table:

    POOL/compacted/<table>/<first part>-<last part>-<fingerprint of the part files' names>-<sha256>.parquet

The table itself stays as it is, a file a part: those names say what was computed from what, which part is done and what a
retry replaces. A copy stands in for exactly the files that its fingerprint was taken over, in whatever version of the
table they are; from the commit that replaces one of them on it is out of use, and the other parts of its run are read
from their own files until the next compaction. So a copy is never stale, may be deleted at any time, and needs no commit.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import Fenced
from curate.lease import Run
from curate.parquet import read_columns
from curate.progress import Progress, Silent
from curate.stage import Crew, PartFile, PartReport, PartTask, Resources, fingerprint
from curate.store import ROW_GROUP_ROWS, Pool, Snapshot

FOLDER = "compacted"
FILE_ROWS = 8 * ROW_GROUP_ROWS
"""Rows at which a run of parts ends: enough that a footer is small beside its columns, few enough that a change copies little anew."""
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{32})-[0-9a-f]{64}\.parquet")


# -- reading


@dataclass(frozen=True)
class Source:
    """A file to read: a part's own, or a copy that stands in for the files of several parts."""

    path: Path
    size_bytes: int
    members: tuple[PartFile, ...]


def sources(pool: Pool, snapshot: Snapshot) -> list[Source]:
    """The fewest files that hold exactly this version's rows, in part order."""
    found: list[Source] = []
    numbers = [file.part for file in snapshot.files]
    at = 0
    for copy in _copies(pool, snapshot):
        low, high = _span(numbers, copy.first, copy.last)
        if low >= at and snapshot.files[low:high] and copy.basis == _basis(snapshot.files[low:high]):
            found += [*_alone(snapshot, at, low), Source(copy.path, copy.path.stat().st_size, snapshot.files[low:high])]
            at = high
    return [*found, *_alone(snapshot, at, len(numbers))]


def unused(pool: Pool) -> list[Path]:
    """Copies of tables that do not stand in for files of their newest version."""
    found: list[Path] = []
    for folder in (pool.path / FOLDER).glob("*"):
        used = {source.path for source in sources(pool, pool.snapshot(folder.name))}
        found += [path for path in folder.iterdir() if path not in used]
    return found


@dataclass(frozen=True)
class _Copy:
    first: int
    last: int
    basis: str
    path: Path


def _copies(pool: Pool, snapshot: Snapshot) -> list[_Copy]:
    """Of this table, the ones with most parts first where several begin with the same."""
    folder = pool.path / FOLDER / snapshot.table
    paths = list(folder.iterdir()) if folder.is_dir() else []
    named = [(found, path) for path in paths if (found := _NAME.fullmatch(path.name))]
    copies = [_Copy(int(found[1]), int(found[2]), found[3], path) for found, path in named]
    return sorted(copies, key=lambda copy: (copy.first, -copy.last, copy.path.name))


def _span(numbers: Sequence[int], first: int, last: int) -> tuple[int, int]:
    return bisect.bisect_left(numbers, first), bisect.bisect_right(numbers, last)


def _alone(snapshot: Snapshot, low: int, high: int) -> list[Source]:
    return [Source(snapshot.folder / file.path, file.size_bytes, (file,)) for file in snapshot.files[low:high]]


def _basis(files: Iterable[PartFile]) -> str:
    return fingerprint("\n".join(file.path for file in files))


# -- writing


@dataclass(frozen=True)
class CompactReport:
    """What a compaction did: tables looked at, copies written now and there before, part files that all of them stand in for."""

    tables: int
    written: int
    before: int
    part_files: int
    bytes: int  # of the copies written now


def compact(pool: Pool, run: Run, crew: Crew, progress: Progress | None = None, file_rows: int = FILE_ROWS) -> CompactReport:
    """Copies the tables' small files into large ones, under the tables' leases; what has a copy is left alone.

    Stopped at any time, it goes on where it was. Raises PoolBusy while a run writes one of the tables, Fenced, PartsFailed.
    """
    progress, tables = progress or Silent(), _claimed(pool, run)
    runs = [_Run(table, files) for table in tables for files in _runs(table.files, file_rows)]
    present = {table.table: {copy.basis for copy in _copies(pool, table)} for table in tables}
    wanted = [one for one in runs if one.basis not in present[one.table.table]]
    tasks = [one.task(pool, number) for number, one in enumerate(wanted)]
    phase, made = _Copying({table.table: table.schema.remove_metadata() for table in tables if table.schema}), list[PartFile]()
    progress.start(phase.name, len(tasks), "files")
    for report in crew.each(phase, tasks) if tasks else ():
        made += report.files
        progress.advance(phase.name, 1)
    _keep(pool, run, made)
    progress.finish(phase.name)
    size_bytes = sum(file.size_bytes for file in made)
    return CompactReport(len(tables), len(made), len(runs) - len(made), sum(len(one.files) for one in runs), size_bytes)


def _claimed(pool: Pool, run: Run) -> list[Snapshot]:
    """Tables of several files; a removal that comes meanwhile waits for this run, or fences it."""
    found = [pool.snapshot(table) for table in pool.tables()]
    several = [snapshot for snapshot in found if len(snapshot.files) > 1 and snapshot.schema is not None]
    for snapshot in several:
        run.add(snapshot.table, snapshot.schema or pa.schema([]))
    return [pool.snapshot(snapshot.table) for snapshot in several]


def _keep(pool: Pool, run: Run, made: Sequence[PartFile]) -> None:
    """Leaves no copy that a takedown, which took the table over meanwhile, has not seen."""
    try:
        run.check()
    except Fenced:
        for file in made:
            (pool.path / file.path).unlink(missing_ok=True)
        raise


def _runs(files: Sequence[PartFile], file_rows: int) -> Iterator[tuple[PartFile, ...]]:
    """Neighbouring parts that together reach `file_rows`, and what is left at the end; all files of a part stay together."""
    run, rows = list[PartFile](), 0
    for _, of_part in itertools.groupby(files, lambda file: file.part):
        found = list(of_part)
        run, rows = [*run, *found], rows + sum(file.rows for file in found)
        if rows >= file_rows:
            yield from [tuple(run)] if len(run) > 1 else []
            run, rows = [], 0
    if len(run) > 1:
        yield tuple(run)


@dataclass(frozen=True)
class _Run:
    """Neighbouring parts of a table that have one copy."""

    table: Snapshot
    files: tuple[PartFile, ...]

    @property
    def basis(self) -> str:
        return _basis(self.files)

    def task(self, pool: Pool, number: int) -> PartTask:
        """The order to write the copy: its inputs are the files, its basis the table and the name without its hash."""
        stem = f"{self.files[0].part:05d}-{self.files[-1].part:05d}-{self.basis}"
        paths = {file.path: str(self.table.folder / file.path) for file in self.files}
        return PartTask(str(pool.path), number, paths, f"{self.table.table}/{stem}")


@dataclass(frozen=True)
class _Copying:
    """The work as an engine sees it."""

    schemas: Mapping[str, pa.Schema]  # of each table

    name = "compact"
    table = ""
    inputs = ()
    schema = pa.schema([])
    resources = Resources()

    def identity(self) -> str:
        return fingerprint(self.name)

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        yield self._do

    def _do(self, task: PartTask) -> PartReport:
        table, stem = task.basis.split("/")
        pool, schema = Pool.open(task.pool), self.schemas[table]
        temporary, rows = pool.temporary(".parquet"), 0
        with pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=False) as file:
            for group in _groups(_read(path, schema) for path in task.inputs.values()):
                file.write_table(group, row_group_size=2 * ROW_GROUP_ROWS)  # whole parts stay together, unless they are huge
                rows += group.num_rows
        size_bytes = temporary.stat().st_size
        path = pool.publish(temporary, f"{FOLDER}/{table}", stem)
        return PartReport(task.part, (PartFile("", task.part, path, size_bytes, rows, ""),))


def _read(path: str, schema: pa.Schema) -> pa.Table:
    """A file's rows with all columns of the table: those that it lacks are null."""
    table = read_columns(path, schema.names)
    return pa.concat_tables([schema.empty_table(), table], promote_options="default").cast(schema)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, joined until they make a row group; one group is in memory at a time."""
    waiting, rows = list[pa.Table](), 0
    for table in tables:
        waiting, rows = [*waiting, table], rows + table.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
