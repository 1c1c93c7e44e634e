"""What a pool already has of a further list: one join over the ids of both, on disk, in bounded memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from curate.plan.parts import refused
from curate.store import Pool, Snapshot

MEMORY = "1GB"  # beyond it DuckDB works on disk, in the pool's tmp/

_JOIN = """
    CREATE TABLE found AS
    SELECT new.part, new.row,
        bool_or(old.sample_id = new.sample_id) AS is_known,
        list(DISTINCT old.part ORDER BY old.part) FILTER (old.reason IS NULL) AS earlier_parts
    FROM new JOIN (SELECT part, url_id, sample_id, reason FROM read_parquet($files, hive_partitioning = false)) old USING (url_id)
    GROUP BY new.part, new.row
    ORDER BY new.part, new.row
"""


class Known:
    """Ids of a further list, and which of them the pool has; made by `known_rows`."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {"memory_limit": MEMORY, "temp_directory": str(folder / "spill")}
        self._connection = duckdb.connect(str(folder / "ids.duckdb"), config=config)
        self._connection.execute("CREATE TABLE new (part INTEGER, row INTEGER, url_id VARCHAR, sample_id VARCHAR)")

    def add(self, part: int, rows: pa.Table) -> None:
        """Notes the ids of one part of the list."""
        ids = rows.select(["row", "url_id", "sample_id"]).append_column("part", pa.repeat(pa.scalar(part, pa.int32()), rows.num_rows))
        self._connection.register("ids", ids)
        self._connection.execute("INSERT INTO new BY NAME FROM ids")
        self._connection.unregister("ids")

    def join(self, pool_rows: Snapshot) -> None:
        """Looks all ids up in the pool's rows."""
        self._connection.execute(_JOIN, {"files": pool_rows.paths()})

    def marked(self, part: int, rows: pa.Table) -> pa.Table:
        """The part's rows: those whose sample the pool has are duplicates; the others say which parts ask for their URL."""
        found = self._connection.execute("SELECT row, is_known, earlier_parts FROM found WHERE part = ?", [part]).fetchall()
        known, parts = np.zeros(rows.num_rows, dtype=np.bool_), np.full(rows.num_rows, None, object)
        for row, is_known, earlier in found:
            known[row], parts[row] = is_known, earlier
        rows = refused(rows, pa.array(known), "duplicate_row")
        parts[rows["reason"].is_valid().to_numpy()] = None
        place = rows.schema.get_field_index("earlier_parts")
        return rows.set_column(place, "earlier_parts", pa.array(parts, rows.schema.field(place).type))

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()


@contextmanager
def known_rows(pool: Pool) -> Iterator[Known]:
    """A `Known` whose files are gone when the block ends."""
    folder = pool.temporary(".known")
    folder.mkdir()
    known = Known(folder)
    try:
        yield known
    finally:
        known.close()
        shutil.rmtree(folder, ignore_errors=True)
