"""Files that nobody names: what killed runs, fenced drivers and refused reports have left in a pool.

Spared is whatever is younger than a day, named by any version of a table (and with it by any subset), reported by a worker
and not committed yet, or of a table that a live run holds. Old versions of tables stay readable: this is no vacuum. Copies
that `curate compact` made go when the newest version of their table has no use for them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from curate.compact import unused
from curate.engines import reports
from curate.lease import lease_holder, refuse_unfinished
from curate.progress import Progress, Silent
from curate.store import Pool

DAY_SECONDS = 86_400.0
_SIDE_COLUMNS = {"fetched": ("tar_file", "tars"), "scores_": ("embedding_file", "embeddings")}


@dataclass(frozen=True)
class SweepReport:
    """What was deleted (or, with `dry_run`, would be): files and bytes; tables left alone because a run holds them."""

    files: int
    bytes: int
    held: tuple[str, ...]
    dry_run: bool

    def text(self) -> str:
        """Lines for a terminal."""
        verb = "would be deleted" if self.dry_run else "deleted"
        held = f"; left alone, as a run is writing them: {', '.join(self.held)}" if self.held else ""
        return f"{self.files:,} files that nobody names {verb}, {self.bytes / 2**20:,.1f} MiB{held}\n"


def sweep(pool: Pool, older_than_seconds: float = DAY_SECONDS, dry_run: bool = False, progress: Progress | None = None) -> SweepReport:
    """Deletes files that nobody names. Raises RemovalUnfinished while rows are being taken down."""
    refuse_unfinished(pool)
    progress = progress or Silent()
    until = time.time() - older_than_seconds
    held = tuple(table for table in _folders(pool) if lease_holder(pool, table))
    reported = set(reports.named_files(pool))
    files = size_bytes = 0
    progress.start("sweep", None, "files")
    for path in [*_of_tables(pool, held, reported), *_beside(pool, held), *_copies(pool, held), *_loose(pool)]:
        found = _size_if_old(path, until)
        if found is not None and (dry_run or _delete(pool, path, until)):
            files, size_bytes = files + 1, size_bytes + found
            progress.advance("sweep", 1)
    progress.finish("sweep")
    return SweepReport(files, size_bytes, held, dry_run)


def _of_tables(pool: Pool, held: tuple[str, ...], reported: set[Path]) -> Iterator[Path]:
    """Data files that no version of their table names."""
    for table in _folders(pool):
        if table not in held:
            named = _ever_named(pool, table)
            there = pool.table_folder(table).glob("*.parquet")
            yield from (path for path in there if path.name not in named and path not in reported)


def _folders(pool: Pool) -> list[str]:
    """Tables, and what a run that died before its first commit left of one."""
    return sorted(path.name for path in (pool.path / "tables").glob("*") if path.is_dir())


def _ever_named(pool: Pool, table: str) -> set[str]:
    """Of all versions: the log is never shortened, and what a checkpoint holds is asked of the newest version."""
    named = {file.path for file in pool.snapshot(table).files} if table in pool.tables() else set[str]()
    for log in (pool.table_folder(table) / "_delta_log").glob("*.json"):
        for line in log.read_text().splitlines():
            if '"add"' in line:
                named.add(str(json.loads(line).get("add", {}).get("path", "")))
    return named


def _beside(pool: Pool, held: tuple[str, ...]) -> Iterator[Path]:
    """Tars and embeddings that no table file names, be it of an old version or not committed yet."""
    for family, (column, folder) in _SIDE_COLUMNS.items():
        tables = [table for table in pool.tables() if table.startswith(family)]
        if not tables or any(table in held for table in tables):
            continue
        named = {name for table in tables for path in pool.table_folder(table).glob("*.parquet") for name in _named_in(path, column)}
        yield from (path for path in (pool.path / folder).rglob("*") if path.is_file() and str(path.relative_to(pool.path)) not in named)


def _named_in(path: Path, column: str) -> list[str]:
    if column not in pq.read_schema(path).names:
        return []
    names: list[str] = pq.read_table(path, columns=[column], partitioning=None)[column].drop_null().unique().to_pylist()
    return names


def _copies(pool: Pool, held: tuple[str, ...]) -> Iterator[Path]:
    yield from (path for path in unused(pool) if path.parent.name not in held)


def _loose(pool: Pool) -> Iterator[Path]:
    """What was never published, and halves of reports."""
    yield from (pool.path / "tmp").glob("*")
    for table in reports.tables(pool):
        for name in reports.names(pool, table):
            if reports.read(pool, table, name) is None:
                yield pool.path / reports.FOLDER / table / name


def _size_if_old(path: Path, until: float) -> int | None:
    """Its bytes; None where it is too young or gone."""
    try:
        newest = max([path.stat().st_mtime, *(inner.stat().st_mtime for inner in path.rglob("*"))])
        return None if newest > until else sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())
    except FileNotFoundError:
        return None


def _delete(pool: Pool, path: Path, until: float) -> bool:
    """Takes the file out of the way first and then looks at its age again: a run may have published it anew at this moment."""
    aside = pool.temporary(".swept")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    if _size_if_old(aside, until) is None:
        os.rename(aside, path)
        return False
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    return True
