"""The tables that duplicate search writes into a real pool: aligned, whole, idempotent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curate.dedupe import DedupeReport, DedupeSettings, dedupe, output_tables
from curate.engines.base import EngineSettings
from curate.errors import SchemaError, UsageError
from curate.lease import claim
from curate.run import crew
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase

SETTINGS = DedupeSettings()
IMAGES = ScorePhase(ScoreSettings(caption=None))


def run(pool: Pool, settings: DedupeSettings = SETTINGS, bucket_rows: int = 1 << 19) -> DedupeReport:
    with claim(pool, output_tables(settings)) as writer:
        return dedupe(pool, writer, settings, crew(EngineSettings(workers=2, bucket_rows=bucket_rows)))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    shared, other = noise(1, 200, 240), noise(2, 200, 240)
    made = make_pool(
        tmp_path / "pool",
        [
            [Row("one", jpeg(shared)), Row("gone", None), Row("copy", jpeg(shared)), Row("alone", jpeg(noise(3, 200, 240)))],
            [Row("gone too", None)],
            [Row("again", jpeg(shared, 60)), Row("two", jpeg(other)), Row("two again", jpeg(other)), Row("cut", jpeg(other)[:900])],
        ],
    )
    run_phase(made, IMAGES, IMAGES.schema)
    return made


def test_groups_stand_at_their_rows(pool: Pool) -> None:
    report = run(pool)
    assert report == DedupeReport(7, 2, 5, 3, 2, 1, recomputed=True)
    table = pool.snapshot("groups_pixels").read().to_pydict()
    assert list(zip(table["part"], table["row"], strict=True)) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert table["group_size"] == [3, None, 3, 1, None, 3, 2, 2, 1]
    assert table["match"] == ["perceptual", None, "perceptual", None, None, "perceptual", "exact", "exact", None]
    ids = pool.snapshot("rows").read(["sample_id"]).column("sample_id").to_pylist()
    first, second = min(ids[0], ids[2], ids[5]), min(ids[6], ids[7])
    assert table["group_id"] == [first, None, first, None, None, first, second, second, None]


def test_workers_find_what_one_process_finds(pool: Pool) -> None:
    bytes_only = DedupeSettings(perceptual=False)  # with looks there are three times as many rounds; tests/dedupe/test_grouping.py has them
    alone = run(pool, bytes_only), pool.snapshot("groups_pixels").files, pool.snapshot("pairs_pixels").files
    with claim(pool, output_tables(SETTINGS)) as writer:
        for table in output_tables(SETTINGS):
            writer.replace_all(table, [])
    assert (run(pool, bytes_only, bucket_rows=3), pool.snapshot("groups_pixels").files, pool.snapshot("pairs_pixels").files) == alone
    assert not list((pool.path / "tmp").iterdir())


def test_pairs_are_the_evidence(pool: Pool) -> None:
    run(pool)
    lines = pool.snapshot("pairs_pixels").read().to_pylist()
    found = {(p["part"], p["row"], p["other_part"], p["other_row"]): (p["match"], p["distance"] <= 4) for p in lines}
    ids = pool.snapshot("rows").read(["sample_id"]).column("sample_id").to_pylist()
    face = 0 if ids[0] < ids[2] else 2
    assert found == {(0, 0, 0, 2): ("exact", True), (0, face, 2, 0): ("perceptual", True), (2, 1, 2, 2): ("exact", True)}


def test_nothing_happens_when_nothing_changed(pool: Pool) -> None:
    first = run(pool)
    before = pool.snapshot("groups_pixels").files, pool.snapshot("pairs_pixels").files
    again = run(pool)
    assert not again.recomputed
    assert (pool.snapshot("groups_pixels").files, pool.snapshot("pairs_pixels").files) == before
    assert DedupeReport(**{**vars(again), "recomputed": True}) == first


def test_other_settings_replace_the_whole_table(pool: Pool) -> None:
    run(pool)
    report = run(pool, DedupeSettings(perceptual=False))
    assert report.recomputed
    assert report.near_pairs == 0
    assert pool.snapshot("groups_pixels").read().column("group_size").to_pylist() == [2, None, 2, 1, None, 1, 2, 2, 1]
    assert pool.snapshot("pairs_pixels").read().num_rows == 2


def test_another_name_is_another_table(pool: Pool) -> None:
    run(pool)
    run(pool, DedupeSettings(name="bytes", perceptual=False))
    assert {"groups_pixels", "groups_bytes", "pairs_pixels", "pairs_bytes"} <= set(pool.tables())


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    empty = Pool.create(tmp_path / "empty")
    with pytest.raises(UsageError, match="nothing has been fetched"):
        run(empty)
    unscored = make_pool(tmp_path / "unscored", [[Row("one", jpeg(noise(1)))]])
    with pytest.raises(UsageError, match="scores_base has no phash"):
        run(unscored)
    words = ScorePhase(ScoreSettings(image=None))
    run_phase(unscored, words, words.schema)
    with pytest.raises(UsageError, match="scores_base has no phash"):
        run(unscored)
    assert run(unscored, DedupeSettings(perceptual=False)).rows == 1


def test_a_part_that_is_not_scored_yet_is_named(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("one", jpeg(noise(1)))], [Row("two", jpeg(noise(2)))]])
    run_phase(pool, IMAGES, IMAGES.schema)
    with claim(pool, {"scores_base": IMAGES.schema}) as writer:
        writer.replace_all("scores_base", pool.snapshot("scores_base").files[:1])
    with pytest.raises(UsageError, match="the first of them 1"):
        run(pool)


def test_a_broken_digest_is_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("one", jpeg(noise(1)))]])
    table = pool.snapshot("fetched").read().drop_columns(["sha256"]).append_column("sha256", pa.array(["XYZ"]))
    with claim(pool, {"fetched": pool.snapshot("fetched").schema}) as writer:
        writer.commit("fetched", [pool.write_part("fetched", 0, table, "test")])
    with pytest.raises(SchemaError, match="64 hex digits"):
        run(pool, DedupeSettings(perceptual=False))
