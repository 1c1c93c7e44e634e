"""Rows meet in their parts in the order in which they came, however many parts there are and however little memory."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.plan import spool as spooling
from curate.plan.spool import spool
from curate.store import Pool

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def blocks(rows: int, parts: int, seed: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Rows of random parts, 50 at a time; some blocks are empty."""
    draw = random.Random(seed)
    for first in range(0, rows, 50):
        numbers = range(first, first + (0 if first % 350 == 0 else 50))
        of = np.array([draw.randrange(parts) for _ in numbers], np.int64)
        yield of, pa.record_batch([pa.array(numbers, pa.int64()), pa.array([f"row {number}" for number in numbers], pa.string())], SCHEMA)


def open_files() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("budget_bytes", [1, 2_000, 1 << 20])
@pytest.mark.parametrize("parts", [1, 4, 5, 65])
def test_every_row_comes_back_in_its_part_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, budget_bytes: int) -> None:
    monkeypatch.setattr(spooling, "FAN_OUT", 4)
    pool, expected = Pool.create(tmp_path / "pool"), dict[int, list[int]]()
    with spool(pool, SCHEMA, range(parts), budget_bytes) as made:
        for of, rows in blocks(1_000, parts, parts):
            made.add(of, rows)
            for part, number in zip(of.tolist(), rows["number"].to_pylist(), strict=True):
                expected.setdefault(part, []).append(number)
        before = open_files()
        for _ in range(2):
            found = list(made.read())
            assert [part for part, _ in found] == sorted(expected)
            assert all(rows["number"].to_pylist() == expected[part] for part, rows in found)
            assert all(rows.schema == SCHEMA and rows["text"][0].as_py() == f"row {expected[part][0]}" for part, rows in found)
        assert open_files() <= before
    assert not list((pool.path / "tmp").iterdir())


def test_pieces_on_disk_grow_with_the_rows_and_not_with_rows_times_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece a part in each written run, which this once did, made ten million rows take seventeen times as long as one."""
    monkeypatch.setattr(spooling, "FAN_OUT", 16)
    written: list[int] = []
    write = spooling._Neighbours.write
    monkeypatch.setattr(spooling._Neighbours, "write", lambda file, rows: (written.append(rows.num_rows), write(file, rows)))

    def pieces(rows: int) -> int:
        written.clear()
        with spool(Pool.create(tmp_path / str(rows)), SCHEMA, range(rows // 100), 8_192) as made:
            for of, batch in blocks(rows, rows // 100, rows):
                made.add(of, batch)
            assert sum(found.num_rows for _, found in made.read()) == sum(of.size for of, _ in blocks(rows, rows // 100, rows))
        return len(written)

    assert pieces(20_000) <= 8 * pieces(5_000), "rows times parts would be sixteen times"
