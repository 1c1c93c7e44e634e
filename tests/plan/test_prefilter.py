"""The prefilter refuses rows by SQL or by id, and a looser one touches only the parts whose decisions change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import InputError, SettingsError, UsageError
from curate.lease import claim
from curate.plan import PrefilterReport, prefilter
from curate.store import Pool
from tests.plan import lists

UIDS = [f"{at:016x}{at * 7:016x}" for at in range(40)]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Forty rows in four parts: one duplicate, one null score."""
    header = "uid,url,text,similarity,WIDTH\n"
    body = [f"{uid},http://a.com/{at},text {at},{at / 40},{200 + at}\n" for at, uid in enumerate(UIDS)]
    body[5] = f"{UIDS[5]},http://a.com/5,text 5,,205\n"
    body[9] = f"{UIDS[9]},http://a.com/8,text 8,0.9,209\n"
    path = lists.write(tmp_path / "list.csv", header + "".join(body))
    return lists.planned(tmp_path / "pool", path, rows_per_part=10)[0]


def decide(pool: Pool, where: str | None = None, uid_file: Any = None) -> PrefilterReport:
    """One prefilter run."""
    with claim(pool, {}) as run:
        return prefilter(pool, run, where, None if uid_file is None else str(uid_file))


def kept(pool: Pool) -> set[int]:
    """Input rows that may be requested; checks that both tables are aligned and reasons are told once."""
    rows, decisions = (pool.snapshot(name).read().to_pylist() for name in ("rows", "decisions_prefilter"))
    assert [(one["part"], one["row"]) for one in rows] == [(one["part"], one["row"]) for one in decisions]
    for row, decision in zip(rows, decisions, strict=True):
        refused = not decision["keep"] and row["reason"] is None
        assert decision["reason"] == ("prefilter" if refused else None)
        assert decision["failed_rules"] == (["prefilter"] if refused else None)
        assert not (decision["keep"] and row["reason"])
    return {row["source_row"] for row, decision in zip(rows, decisions, strict=True) if decision["keep"]}


def test_a_condition_over_input_columns(pool: Pool) -> None:
    report = decide(pool, "similarity > 0.3 AND WIDTH >= 220 -- a comment")
    assert kept(pool) == set(range(20, 40))
    assert (report.passed, report.refused, report.refused_at_plan, report.parts_changed) == (20, 19, 1, 4)


def test_null_is_refused(pool: Pool) -> None:
    decide(pool, "similarity >= 0")
    assert kept(pool) == set(range(40)) - {5, 9}
    decide(pool, "NULL")
    assert kept(pool) == set()


def test_columns_have_three_names(pool: Pool) -> None:
    for where in ("WIDTH = 207", "source.WIDTH = 207", '"source.WIDTH" = 207', "sample_id = sample_id AND url = 'http://a.com/7'"):
        decide(pool, where)
        assert kept(pool) == {7}


def test_without_a_condition_all_sound_rows_pass(pool: Pool) -> None:
    assert decide(pool).passed == 39
    assert kept(pool) == set(range(40)) - {9}


def test_a_looser_condition_changes_only_the_parts_it_touches(pool: Pool) -> None:
    decide(pool, "WIDTH > 230")
    before = pool.snapshot("decisions_prefilter")
    assert decide(pool, "WIDTH > 229 + 1").parts_changed == 0
    assert pool.snapshot("decisions_prefilter").version == before.version + 1  # the claim alone, no commit
    report = decide(pool, "WIDTH > 229")
    after = pool.snapshot("decisions_prefilter")
    assert report.parts_changed == len({file.path for file in after.files} - {file.path for file in before.files}) == 1
    assert kept(pool) == set(range(30, 40))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("similarty > 1", "did you mean 'similarity'"),
        ("source.widt > 1", "did you mean 'WIDTH'"),
        ("similarity >", "prefilter='similarity >'"),
        ("text", "prefilter='text'"),
        ("1); DROP TABLE candidates; SELECT (1", "prefilter="),
        ("true) AS holds, row FROM candidates, candidates AS other --", "prefilter="),
        ("EXISTS (SELECT * FROM read_csv('/etc/hostname'))", "prefilter="),
        ("EXISTS (SELECT * FROM '/etc/hostname')", "prefilter="),
        ("EXISTS (SELECT * FROM data)", "prefilter="),
        ("sum(WIDTH) > 3", "prefilter="),
    ],
)
def test_wrong_sql_is_one_line_and_decides_nothing(pool: Pool, where: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("'", ".")) as caught:
        decide(pool, where)
    assert "\n" not in str(caught.value)
    assert pool.snapshot("decisions_prefilter").files == ()


def test_ids_from_text_parquet_and_datacomp_arrays(pool: Pool, tmp_path: Path) -> None:
    chosen = [UIDS[at] for at in (3, 30, 12)]
    (tmp_path / "ids.txt").write_text("\n".join(chosen) + "\n\n")
    pq.write_table(pa.table({"uid": chosen, "x": [1, 2, 3]}), tmp_path / "ids.parquet")
    pairs = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in chosen], "u8,u8")
    np.save(tmp_path / "unsorted.npy", pairs)
    np.save(tmp_path / "sorted.npy", np.sort(pairs))
    np.save(tmp_path / "big_endian.npy", pairs.astype(">u8,>u8"))
    for name in ("ids.txt", "ids.parquet", "unsorted.npy", "sorted.npy", "big_endian.npy"):
        decide(pool)
        decide(pool, uid_file=tmp_path / name)
        assert kept(pool) == {3, 12, 30}, name
    decide(pool, "WIDTH > 210", tmp_path / "ids.txt")
    assert kept(pool) == {12, 30}


def test_ids_may_be_curates_own(pool: Pool, tmp_path: Path) -> None:
    rows = lists.in_list_order(pool)
    (tmp_path / "ids.txt").write_text(f"{rows[3]['sample_id']}\n{rows[4]['url_id']}\n")
    decide(pool, uid_file=tmp_path / "ids.txt")
    assert kept(pool) == {3, 4}


def test_an_empty_array_keeps_nothing(pool: Pool, tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.array([], "u8,u8"))
    decide(pool, uid_file=tmp_path / "none.npy")
    assert kept(pool) == set()


def test_an_unusable_id_list_is_named(pool: Pool, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.arange(4))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "ids.csv").write_text("x")
    (tmp_path / "ids.parquet").write_text("x")
    for name in ("flat.npy", "objects.npy", "ids.csv", "ids.parquet", "missing.txt"):
        with pytest.raises(InputError, match=name):
            decide(pool, uid_file=tmp_path / name)


def test_a_pool_without_rows_is_told_to_plan(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan a list first"):
        decide(Pool.create(tmp_path / "empty"))
