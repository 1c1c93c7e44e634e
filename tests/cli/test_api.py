"""The Python face: what `curate.open` gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import curate
from curate.errors import SettingsError, UsageError


def test_sql_answers_as_dataframe_arrow_rows_and_text(read_only: Path) -> None:
    answer = curate.open(str(read_only)).sql("SELECT caption, clip_score FROM samples WHERE keep ORDER BY clip_score DESC")
    assert len(answer) == 4
    assert answer.df()["caption"].iloc[0] == answer.arrow()["caption"][0].as_py() == answer.rows()[0]["caption"]
    assert "clip_score" in repr(answer)


def test_a_dataset_is_a_condition_over_the_fetched_tars(read_only: Path) -> None:
    pool = curate.open(str(read_only))
    samples = list(pool.dataset("keep AND clip_score > 0.34").epoch(0))
    assert len(samples) == len(pool.sql("FROM samples WHERE keep AND clip_score > 0.34")) > 0
    assert all(image.startswith(b"\xff\xd8") and caption and len(sample_id) == 32 for image, caption, sample_id in samples)
    assert [sample.sample_id for sample in pool.dataset(seed=1).epoch(0)] != [sample.sample_id for sample in pool.dataset(seed=2).epoch(0)]


def test_reports_are_the_commands_reports(read_only: Path) -> None:
    pool = curate.open(str(read_only))
    assert pool.path == read_only
    assert pool.funnel().rows == pool.status().rows == 12
    assert pool.verify(deep=False).ok
    assert set(pool.digest()) == {"content", "scores"}
    assert pool.history("http://a.example/0/3.jpg")[0].phase == "plan"


def test_a_policy_and_a_condition_change_what_samples_shows(pool: Path) -> None:
    opened = curate.open(str(pool))
    outcome = opened.filter("clip_top30", mode="quantile", groups="none", fractions={"clip_cut": 0.5})
    assert outcome.subset.kept == len(opened.sql("FROM samples WHERE keep"))
    sharp = opened.filter(where="clip_score > 0.34", name="sharp")
    assert sharp.subset.kept == len(opened.sql("FROM samples WHERE keep", policy="sharp")) == 3
    assert opened.filter(where="clip_score > 0.34", name="sharp").unchanged


def test_what_is_applied_can_be_packed_under_its_name(pool: Path) -> None:
    opened = curate.open(str(pool))
    opened.filter(where="clip_score > 0.34", name="sharp")
    packed = opened.pack(shard_samples=2)
    assert (packed.subset, packed.samples, packed.shards) == ("sharp", 3, 2)
    assert opened.verify().ok


def test_a_report_is_a_page(read_only: Path, tmp_path: Path) -> None:
    page = curate.open(str(read_only)).report(tmp_path / "page.html")
    assert page == tmp_path / "page.html" and page.read_text().lower().startswith("<!doctype html")


def test_wrong_names_are_refused(read_only: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        curate.open(str(tmp_path / "nothing"))
    pool = curate.open(str(read_only))
    with pytest.raises(SettingsError, match="did you mean"):
        pool.filter("clip_top3")
    with pytest.raises(SettingsError, match="radius_bits"):
        pool.dedupe(radius_bit=3)
    with pytest.raises(UsageError, match="curate pack"):
        pool.train(subset="nowhere")
    with pytest.raises(UsageError, match="curate train"):
        pool.evaluate("nowhere")
    with pytest.raises(UsageError, match="data=FOLDER"):
        pool.evaluate(tmp_path)
