"""What a removal has decided and how far it is: written before anything changes, so that a killed one goes on where it stopped.

`documents/removal.json` stands from then until the end, and every run that would write is refused as long as it does.
`takedowns/<number>.parquet` (or `purges/`) holds the rows, and stays as the record for whoever took data from this pool.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from curate.lease import REMOVAL, REMOVALS
from curate.removal.subsets import Standing
from curate.removal.tars import Leaving
from curate.settings import Settings
from curate.stage import PartFile
from curate.store import Pool, sync_file, sync_folder

Kind = Literal["takedown", "purge"]


class Subsetted(Settings):
    """A subset before the removal."""

    is_fresh: bool
    digest: str


class Written(Settings):
    """A table file that is published and waits for its commit."""

    table: str
    part: int
    path: str
    size_bytes: int
    rows: int
    basis: str

    def file(self) -> PartFile:
        """As the store wants it."""
        return PartFile(**self.model_dump())


class Journal(Settings):
    """A removal under way. `batch` holds the files that are being committed right now: of the parts `writing`, and of others
    that use their images."""

    kind: Kind
    number: int
    when: str  # UTC, ISO 8601
    because: str
    erase_text: bool
    waiting: tuple[int, ...]  # parts that are still to be written
    parts: tuple[int, ...]  # all parts
    subsets: dict[str, Subsetted]
    writing: tuple[int, ...] = ()
    batch: tuple[Written, ...] = ()
    tars: dict[str, str | None] = {}  # old -> new, None when nothing is left in it
    bytes_freed: int = 0

    @property
    def stem(self) -> str:
        """Path of its record, relative to the pool and without suffix."""
        return f"{self.kind}s/{self.number:05d}"

    @property
    def at(self) -> datetime.datetime:
        """When it began."""
        return datetime.datetime.fromisoformat(self.when)

    def standings(self) -> dict[str, Standing]:
        """The subsets as they stood."""
        return {name: Standing(found.is_fresh, found.digest) for name, found in self.subsets.items()}


def new_number(pool: Pool, kind: Kind) -> int:
    """1 for a pool's first takedown (or purge), and so on."""
    return 1 + max((int(path.stem) for path in (pool.path / f"{kind}s").glob("*.json") if path.stem.isdigit()), default=0)


def unfinished(pool: Pool) -> Journal | None:
    """The removal that waits to be finished, if there is one."""
    found = pool.read_document(REMOVAL)
    return None if found is None else Journal.model_validate(found)


def begin(pool: Pool, journal: Journal, record: pa.Table) -> None:
    """Writes the rows, then the journal: from now on the removal will be finished."""
    path = pool.path / f"{journal.stem}.parquet"
    path.parent.mkdir(exist_ok=True)
    temporary = pool.temporary(".parquet")
    pq.write_table(record, temporary, compression="zstd")
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)
    keep(pool, journal)


def keep(pool: Pool, journal: Journal) -> None:
    """Replaces the journal."""
    pool.write_document(REMOVAL, journal.model_dump(mode="json"))


def end(pool: Pool, journal: Journal) -> None:
    """Takes the journal away, after noting that one more removal is done."""
    done = (pool.read_document(REMOVALS) or {}).get(journal.kind, 0)
    if done != journal.number:
        pool.write_document(REMOVALS, {**(pool.read_document(REMOVALS) or {}), journal.kind: journal.number})
    (pool.path / "documents" / f"{REMOVAL}.json").unlink(missing_ok=True)
    sync_folder(pool.path / "documents")


def record_of(pool: Pool, journal: Journal) -> pa.Table:
    """The rows of the removal, as they were chosen."""
    return pq.read_table(pool.path / f"{journal.stem}.parquet", partitioning=None)


def leaving(journal: Journal, record: pa.Table) -> Leaving:
    """What the parts are written without."""
    hashes = frozenset(record.filter(record["bytes_go"])["image_sha256"].drop_null().to_pylist())
    return Leaving(journal.kind, record, hashes if journal.kind == "takedown" else frozenset(), journal.erase_text)


def records(pool: Pool) -> Mapping[Path, pa.Table]:
    """The records of all takedowns of the pool."""
    return {path: pq.read_table(path, partitioning=None) for path in sorted((pool.path / "takedowns").glob("*.parquet"))}
