"""`samples` read in stretches is `samples` joined by keys, however the tables lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.catalog import stretches as module
from curate.catalog.stretches import Stretch
from curate.catalog.views import MEMORY_BYTES, NO_POLICY, connect, connect_stretches
from curate.lease import claim
from curate.store import Pool
from tests.catalog import pools

ALL = "SELECT * FROM samples ORDER BY part, row"


def in_stretches(pool: Pool) -> tuple[list[tuple[Any, ...]], list[Stretch]]:
    connection, found = connect_stretches(pool, {}, None, MEMORY_BYTES)
    with connection:
        return connection.execute(ALL).fetchall(), found


def by_keys(pool: Pool) -> list[tuple[Any, ...]]:
    with connect(pool, NO_POLICY) as connection:
        return connection.execute(ALL).fetchall()


def rewrite(pool: Pool, table: str, part: int, change: Any) -> None:
    """Replaces one part's file by the changed one."""
    schema = pool.snapshot(table).schema
    assert schema is not None
    with claim(pool, {table: schema}) as run:
        run.commit(table, [pool.write_part(table, part, change(pool.snapshot(table).read(parts=[part])), "changed", schema)])


@pytest.mark.parametrize("rows", [1, 1 << 20])
def test_stretches_hold_what_a_join_by_keys_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "FILE_ROWS", rows)
    pool = pools.build(tmp_path / "pool")
    lines, found = in_stretches(pool)
    assert lines == by_keys(pool) and lines
    assert len(found) == (len(pool.snapshot("rows").files) if rows == 1 else 1)
    assert all({"rows", "fetched"} <= one.beside for one in found)


def test_a_table_in_another_order_or_with_other_keys_is_joined_by_them(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool")
    before = by_keys(pool)
    rewrite(pool, "fetched", 0, lambda table: table.take(list(reversed(range(table.num_rows)))))
    lines, (one,) = in_stretches(pool)
    assert "fetched" not in one.beside and lines == before

    def moved(table: pa.Table) -> pa.Table:
        place = table.column_names.index("row")
        return table.set_column(place, "row", pa.array([row + 1 for row in table["row"].to_pylist()], pa.int32()))

    rewrite(pool, "fetched", 0, moved)
    lines, (one,) = in_stretches(pool)
    assert "fetched" not in one.beside and lines == by_keys(pool) != before


def test_a_table_with_fewer_rows_or_parts_is_joined_by_keys(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool")
    rewrite(pool, "fetched", 0, lambda table: table.slice(1))
    lines, (one,) = in_stretches(pool)
    assert "fetched" not in one.beside and "rows" in one.beside and lines == by_keys(pool)
