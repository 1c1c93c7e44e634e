"""A further list: further parts, rows that the pool has are marked, columns may only grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.catalog.views import connect
from curate.errors import InputError, UsageError
from curate.lease import claim
from curate.plan import AddReport, InputSettings, add, prefilter
from curate.store import Pool
from tests.plan import lists


def added(pool: Pool, path: str, **settings: Any) -> AddReport:
    with claim(pool, {}) as run:
        return add(pool, run, InputSettings(path=path, **settings))


def listed(folder: Path, name: str, rows: lists.Rows, format: str = "parquet") -> str:
    return lists.write(folder / name, lists.encoded(rows, format))


def part_files(pool: Pool) -> dict[int, str]:
    return {file.part: file.path for file in pool.snapshot("rows").files}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return lists.planned(tmp_path / "pool", listed(tmp_path, "list.parquet", lists.rows(60)), rows_per_part=20)[0]


def test_rows_enter_as_further_parts_and_what_the_pool_has_is_marked(pool: Pool, tmp_path: Path) -> None:
    before = part_files(pool)
    had = lists.rows(60)
    more = [*had[:10], {**had[10], "caption": "another"}, {**had[11], "caption": "another"}, *lists.rows(90)[60:], lists.rows(61)[60]]
    report = added(pool, listed(tmp_path, "more.parquet", more))
    assert (report.rows, report.parts, report.first_part, report.shared, report.is_new) == (43, 3, 3, 2, True)
    assert report.reasons == {"ok": 32, "duplicate_row": 11}
    assert {part: file for part, file in part_files(pool).items() if part < 3} == before
    rows = [row for row in pool.snapshot("rows").read().to_pylist() if row["part"] >= 3]
    home = {row["url_id"]: row["part"] for row in pool.snapshot("rows").read(parts=[0, 1, 2]).to_pylist()}
    for row in rows:
        known = row["source_row"] < 10 or (row["url"] == lists.rows(61)[60]["url"] and row["source_row"] == 42)
        assert (row["reason"] == "duplicate_row") == known
        assert row["earlier_parts"] == ([home[row["url_id"]]] if row["source_row"] in (10, 11) else None)


def test_the_same_list_again_changes_nothing_also_the_first_one(pool: Pool, tmp_path: Path) -> None:
    path = listed(tmp_path, "more.parquet", lists.rows(70))
    report = added(pool, path)
    files = sorted(pool.path.rglob("*.parquet"))
    assert added(pool, path) == AddReport(**{**vars(report), "is_new": False})
    first = added(pool, str(tmp_path / "list.parquet"))
    assert (first.first_part, first.rows, first.is_new) == (0, 60, False)
    assert sorted(pool.path.rglob("*.parquet")) == files
    assert not list((pool.path / "tmp").iterdir())


def test_a_third_list_knows_both_before_it(pool: Pool, tmp_path: Path) -> None:
    added(pool, listed(tmp_path, "second.parquet", lists.rows(80)[50:]))
    report = added(pool, listed(tmp_path, "third.parquet", [{**row, "caption": "new"} for row in lists.rows(90)[40:]]))
    assert report.reasons == {"ok": 50}
    rows = [row for row in pool.snapshot("rows").read().to_pylist() if row["part"] >= report.first_part]
    assert report.shared == 40 and sum(row["earlier_parts"] is None for row in rows) == 10
    second = set(range(3, report.first_part))
    for row in rows:
        number = int(row["url"].rsplit("/", 1)[1].removesuffix(".jpg"))
        parts = set(row["earlier_parts"] or ())
        assert bool(parts & {0, 1, 2}) == (number < 60) and bool(parts & second) == (60 <= number < 80)


def test_the_plan_of_the_pool_still_counts_as_done(pool: Pool, tmp_path: Path) -> None:
    added(pool, listed(tmp_path, "more.parquet", lists.rows(70)))
    _, again = lists.planned(pool.path, str(tmp_path / "list.parquet"), rows_per_part=20)
    assert not again.is_new and again.rows == 60


def test_columns_may_only_grow(pool: Pool, tmp_path: Path) -> None:
    rows = [{"URL": "http://new.example/1.jpg", "caption": "one", "WIDTH": 7, "mood": "glad"}]
    added(pool, listed(tmp_path, "more.parquet", rows), url_column="URL")
    schema = pool.snapshot("rows").schema
    assert schema is not None
    names = [name for name in schema.names if name.startswith("source.")]
    assert names == ["source.url", "source.caption", "source.width", "source.score", "source.mood"]
    assert schema.field("source.mood").type == pa.string()
    table = pool.snapshot("rows").read(["part", "source.width", "source.score", "source.mood"]).to_pylist()
    assert table[-1] == {"part": 3, "source.width": 7, "source.score": None, "source.mood": "glad"}
    assert table[0]["source.mood"] is None and table[0]["source.width"] is not None
    with connect(pool) as connection:
        assert connection.execute("SELECT count(*), count(mood) FROM samples").fetchall() == [(61, 1)]
        assert "earlier_parts" not in connection.sql("FROM samples LIMIT 0").columns


def test_a_column_of_another_type_is_named_with_a_way_out(pool: Pool, tmp_path: Path) -> None:
    path = listed(tmp_path, "more.parquet", [{"url": "http://new.example/1.jpg", "caption": "one", "width": "wide", "score": None}])
    with pytest.raises(
        InputError, match=r"column 'width' of this list is string, and source\.width of the pool is int64.*columns\.width_2="
    ):
        added(pool, path)
    assert len(part_files(pool)) == 3
    added(pool, path, columns={"width_2": "width"})
    (row,) = pool.snapshot("rows").read(parts=[3]).to_pylist()
    assert (row["source.width_2"], row["source.width"], row["source.score"]) == ("wide", None, None)


def test_numbers_fit_into_wider_columns_and_anything_into_text(pool: Pool, tmp_path: Path) -> None:
    added(pool, listed(tmp_path, "more.csv", [{"url": "http://new.example/1.jpg", "caption": 5, "score": 2}], "csv"))
    (row,) = pool.snapshot("rows").read(parts=[3]).to_pylist()
    assert (row["caption"], row["source.caption"], row["source.score"]) == ("5", "5", 2.0)


def test_a_condition_on_a_column_that_a_list_lacks_refuses_its_rows(pool: Pool, tmp_path: Path) -> None:
    added(pool, listed(tmp_path, "more.csv", [{"url": "http://new.example/1.jpg", "mood": "glad"}], "csv"), columns={"caption": "mood"})
    with claim(pool, {}) as run:
        report = prefilter(pool, run, "width >= 100")
        assert (report.passed, report.refused) == (60, 1)
        assert prefilter(pool, run, "mood = 'glad'").passed == 1


def test_a_pool_without_rows_takes_no_further_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="curate run ingest"):
        added(Pool.create(tmp_path / "pool"), listed(tmp_path, "list.parquet", lists.rows(3)))


ADD_SLOWLY = """
import sys
from pathlib import Path
from curate.store import Pool
from tests.plan.test_add import added
print("begun", flush=True)
added(Pool.open(Path(sys.argv[1])), sys.argv[2])
"""


def test_an_addition_that_was_killed_is_made_again_to_the_same_files(tmp_path: Path) -> None:
    first, more = listed(tmp_path, "list.jsonl", lists.rows(2000), "jsonl"), listed(tmp_path, "more.jsonl", lists.rows(20_000), "jsonl")
    pools = [lists.planned(tmp_path / name, first, rows_per_part=500)[0] for name in ("undisturbed", "killed")]
    added(pools[0], more)
    for delay_seconds in (0.3, 0.8):
        with subprocess.Popen([sys.executable, "-c", ADD_SLOWLY, str(pools[1].path), more], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            time.sleep(delay_seconds)
            os.kill(process.pid, signal.SIGKILL)
    added(pools[1], more)
    assert part_files(pools[1]) == part_files(pools[0]) and len(part_files(pools[0])) == 48
    assert not list((pools[1].path / "tmp").iterdir())
