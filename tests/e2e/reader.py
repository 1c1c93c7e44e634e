"""Someone who reads a pool while it is written and its writers are killed: every file that has its final name is whole."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from curate.store import Pool, Snapshot

PUBLISHED = ("tars/*.tar", "embeddings/*/*.npy", "tables/*/*.parquet")
ALIGNED = ("fetched", "scores_", "groups_", "decisions_", "telemetry_")
"""Tables with a line for every row of `rows`, part by part."""
_HASH = re.compile(r"-([0-9a-f]{64})\.")


@dataclass
class Reader:
    """Looks at one pool again and again; what it should not have seen stands in `complaints`."""

    path: Path
    looks: int = 0
    files: int = 0
    complaints: list[str] = field(default_factory=list)
    _whole: set[str] = field(default_factory=set)
    _versions: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Every published file by its hash, every document by its syntax, every table by its newest version."""
        if not (self.path / "pool.json").exists():
            return
        self.looks += 1
        for pattern in PUBLISHED:
            for path in self.path.glob(pattern):
                self._is_whole(path)
        for path in self.path.glob("documents/[!.]*.json"):
            json.loads(path.read_text())
        self._packed()
        pool = Pool.open(self.path)
        rows = pool.snapshot("rows")  # pinned first: no table may be ahead of it
        for table in pool.tables():
            self._table(pool.snapshot(table), rows if table == "rows" else pool.snapshot("rows"))

    def _is_whole(self, path: Path) -> None:
        found = _HASH.search(path.name)
        if str(path) in self._whole or found is None:
            return
        if hashlib.sha256(path.read_bytes()).hexdigest() != found[1]:
            self.complaints.append(f"{path.name} is torn")
        self._whole.add(str(path))
        self.files += 1

    def _packed(self) -> None:
        for path in self.path.glob("shards/*/index.json"):
            index = json.loads(path.read_text())
            for shard in index["shards"]:
                tar = path.parent / shard["tar"]
                if f"{tar}{index['digest']}" not in self._whole and path.exists():
                    if tar.stat().st_size != shard["bytes"]:
                        self.complaints.append(f"{tar.name} of {index['subset']} is torn")
                    self._whole.add(f"{tar}{index['digest']}")

    def _table(self, found: Snapshot, rows: Snapshot) -> None:
        if found.version < self._versions.get(found.table, -1):
            self.complaints.append(f"{found.table} went back to version {found.version}")
        if found.version == self._versions.get(found.table):
            return
        self._versions[found.table] = found.version
        for file in found.files:
            path = found.folder / file.path
            if not path.exists() or pq.read_metadata(path).num_rows != file.rows:
                self.complaints.append(f"{found.table} version {found.version} names {file.path}, which is not there or has other rows")
        if found.table.startswith(ALIGNED):
            self._aligned(found, rows)

    def _aligned(self, found: Snapshot, rows: Snapshot) -> None:
        if len(found.by_part) != len(found.files):
            self.complaints.append(f"{found.table} version {found.version} has a part twice")
        for part, file in found.by_part.items():
            if part not in rows.by_part or rows.by_part[part].rows != file.rows:
                self.complaints.append(f"{found.table} version {found.version}: part {part} is not that of rows")


@contextmanager
def reading(path: Path, every_seconds: float = 0.1) -> Iterator[Reader]:
    """A reader at work while the block runs; an error of its own is a complaint."""
    reader, stop = Reader(path), threading.Event()

    def work() -> None:
        while not stop.wait(every_seconds):
            try:
                reader.look()
            except Exception as error:
                reader.complaints.append(f"look {reader.looks}: {type(error).__name__}: {error}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        stop.set()
        thread.join()
