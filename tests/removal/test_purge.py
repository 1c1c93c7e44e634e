"""Purge: bytes of dropped rows go, everything that was measured stays, and no policy can keep a row without an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import curate as library
from curate.errors import UsageError
from tests.removal.handmade import address, image

DROPPED = "outcome = 'dropped' AND tar_file IS NOT NULL"


@pytest.fixture
def pool(handmade_pool: Path, tmp_path: Path) -> Path:
    """A copy to delete bytes of."""
    return Path(shutil.copytree(handmade_pool, tmp_path / "pool"))


def low(pool: Path, columns: str = "*") -> dict:
    return library.open(pool).sql(f"SELECT {columns} FROM samples WHERE url = '{address('low')}'").rows()[0]


def test_bytes_go_and_what_was_measured_stays(pool: Path, curate: Callable) -> None:
    before, kept = low(pool), library.open(pool).sql("SELECT sample_id, image_sha256 FROM samples WHERE keep ORDER BY ALL").rows()
    size = sum(path.stat().st_size for path in (pool / "tars").iterdir())
    said = curate("purge", pool, "--where", DROPPED, "--yes")
    assert said.code == 0 and "2 rows whose bytes are to be deleted" in said.out, said.err
    assert not [path for path in pool.rglob("*.tar") if image(4) in path.read_bytes() or image(6) in path.read_bytes()]
    assert size - sum(path.stat().st_size for path in (pool / "tars").iterdir()) >= len(image(4)) + len(image(6))
    after = low(pool)
    placed = ("tar_file", "tar_offset", "tar_size")
    assert {name: value for name, value in after.items() if name not in placed} == {n: v for n, v in before.items() if n not in placed}
    assert before["reason"] == after["reason"] and not any(after[name] for name in placed)
    assert library.open(pool).sql("SELECT sample_id, image_sha256 FROM samples WHERE keep ORDER BY ALL").rows() == kept
    assert curate("verify", pool).code == 0
    assert json.loads((pool / "purges/00001.json").read_text())["images"] == 2


@pytest.mark.long
def test_a_later_policy_that_would_keep_such_a_row_drops_it_as_purged(pool: Path, curate: Callable) -> None:
    assert curate("purge", pool, "--where", DROPPED, "--yes").code == 0
    assert curate("filter", pool, "name=loose", "--where", "clip_tiny >= 0.15").code == 0
    found = {line["url"]: line for line in library.open(pool).sql("SELECT * FROM samples WHERE clip_tiny < 0.3", "loose").rows()}
    assert found["http://b.example/low.jpg"]["reason"] == "purged" and found["http://b.example/low.jpg"]["outcome"] == "dropped"
    assert found[address("low")]["reason"] != "purged"  # its score is too low for this policy as well
    assert curate("verify", pool).code == 0, curate("verify", pool).out
    assert curate("pack", pool, "loose").code == 0 and curate("verify", pool).code == 0
    assert "purged" in curate("funnel", pool).out


@pytest.mark.long
def test_a_share_is_taken_of_the_same_rows_as_before(pool: Path, curate: Callable) -> None:
    """A cut that keeps half of the images stays where it was when bytes below it are deleted."""
    policy = pool.parent / "half.sql"
    policy.write_text(
        "-- source: made for tests\n-- parameter: cut = quantile\n-- fraction: cut keeps 0.5 of rows with an image by clip_tiny in low\n"
        "SELECT part, row, coalesce(clip_tiny < $cut, false) AS low FROM samples\n"
    )
    said = curate("filter", pool, policy, "groups=none", "--preview", "--format", "json")
    assert said.code == 0, said.err
    before = json.loads(said.out)["subset"]["cuts"]
    assert curate("purge", pool, "--where", DROPPED, "--yes").code == 0
    again = curate("filter", pool, policy, "groups=none", "--preview", "--format", "json")
    assert json.loads(again.out)["subset"]["cuts"] == before


@pytest.mark.long
def test_rows_that_any_policy_keeps_are_refused(pool: Path, curate: Callable) -> None:
    with pytest.raises(UsageError, match="kept by policy 'good'"):
        library.open(pool).purge(where="tar_file IS NOT NULL")
    assert curate("filter", pool, "name=loose", "--where", "clip_tiny >= 0.15").code == 0
    assert curate("filter", pool, "name=good", "--where", "clip_tiny >= 0.3").code == 0
    with pytest.raises(UsageError, match="kept by policy 'loose'"):
        library.open(pool).purge(where=DROPPED)


def test_an_image_that_another_row_uses_is_left(pool: Path, curate: Callable) -> None:
    assert curate("filter", pool, "name=good", "--where", "caption LIKE 'second%'").code == 0
    report = library.open(pool).purge(where=f"url = '{address('pair')}' AND NOT keep")
    assert report.outline.rows == 0 and report.outline.spared == 1
    assert library.open(pool).sql(f"SELECT count(tar_file) AS n FROM samples WHERE url = '{address('pair')}'").rows() == [{"n": 2}]


def test_a_dry_run_changes_nothing(pool: Path) -> None:
    before = sorted(pool.rglob("*"))
    report = library.open(pool).purge(where=DROPPED, dry_run=True)
    assert report.outline.images == 2 and sorted(pool.rglob("*")) == before
