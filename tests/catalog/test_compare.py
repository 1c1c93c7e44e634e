"""Two sides of one pool: counts equal those of plain Python over the tables, and the page shows what they disagree on."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import curate
from curate.catalog.compare import Comparison
from curate.errors import UsageError
from curate.store import Pool
from tests.catalog import pools
from tests.catalog.test_report import EVIL, Page


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual pool, judged by a second policy as well; one caption tries to be markup."""
    parts = pools.usual_parts()
    parts[0][4].caption = EVIL
    pool = pools.build(tmp_path_factory.mktemp("compare") / "pool", parts)
    curate.open(pool.path).filter(where="clip_tiny < 0.3 OR caption = 'short' OR url LIKE '%b.example/1/5%'", name="other")
    return pool.path


def lines(found: Comparison, by: str) -> dict[str, tuple[int, int, int, int]]:
    """Lines of one table: rows, kept by A, by B, by both."""
    (table,) = (table for table in found.tables if table.by == by)
    return {line.name: (line.rows, line.kept_a, line.kept_b, line.both) for line in table.lines}


def test_two_policies_are_counted_as_by_hand(two: Path) -> None:
    pool = curate.open(two)
    found = pool.compare("usual", "other")
    rows = pool.sql(
        "SELECT samples.caption_language AS language, split_part(samples.url, '/', 3) AS host, coalesce(a.keep, false) AS a,"
        " coalesce(b.keep, false) AS b FROM samples LEFT JOIN decisions_usual AS a USING (part, row)"
        " LEFT JOIN decisions_other AS b USING (part, row)"
        " WHERE a.keep OR b.keep OR len(a.failed_rules) > 0 OR len(b.failed_rules) > 0"
    ).rows()
    total = found.total
    assert (total.rows, total.kept_a, total.kept_b, total.both) == (
        len(rows), sum(row["a"] for row in rows), sum(row["b"] for row in rows), sum(row["a"] and row["b"] for row in rows),
    )  # fmt: skip
    assert total.kept_a != total.kept_b and 0 < total.both < total.kept_a
    for by, key in (("language", "language"), ("domain", "host")):
        wanted = {
            name: (count, sum(row["a"] for row in rows if row[key] == name), sum(row["b"] for row in rows if row[key] == name),
                   sum(row["a"] and row["b"] for row in rows if row[key] == name))
            for name, count in Counter(row[key] for row in rows).items()
        }  # fmt: skip
        assert lines(found, by) == wanted
    assert set(lines(found, "size (smaller side)")) == {"below 200 pixels"}
    assert {sample.reason for sample in found.only_a} == {"rule_1"}


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.75])
def test_two_columns_keep_equal_shares(two: Path, fraction: float) -> None:
    pool = curate.open(two)
    found = pool.compare("clip_tiny", "caption_characters", fraction)
    rows = pool.sql("SELECT sample_id, part, row, clip_tiny, caption_characters FROM samples").rows()
    kept = []
    for column in ("clip_tiny", "caption_characters"):
        numbered = [row for row in rows if row[column] is not None and math.isfinite(row[column])]
        ranked = sorted(numbered, key=lambda row: (-row[column], row["sample_id"]))
        kept.append({row["sample_id"] for row in ranked[: math.floor(fraction * len(numbered) + 0.5)]})
    assert (found.total.kept_a, found.total.kept_b, found.total.both) == (len(kept[0]), len(kept[1]), len(kept[0] & kept[1]))
    assert found.jaccard == pytest.approx(len(kept[0] & kept[1]) / len(kept[0] | kept[1]))
    assert {sample.sample_id for sample in found.only_a} <= kept[0] - kept[1]
    assert {sample.reason for sample in (*found.only_a, *found.only_b)} <= {"not among the highest", "not judged"}


def test_the_page_shows_pictures_and_escapes_text(two: Path, tmp_path: Path) -> None:
    found = curate.open(two).compare("clip_tiny", "caption_characters", 0.5, tmp_path / "page.html", reveal=True)
    assert found.page == tmp_path / "page.html"
    page = Page(found.page)
    assert not page.all("script") and "<script>" not in page.text.replace("&lt;script&gt;", "")
    assert EVIL in {sample.caption for sample in (*found.only_a, *found.only_b)}
    pictures = [image["src"] for image in page.all("img")]
    assert len(pictures) == len(found.only_a) + len(found.only_b) > 0
    assert all(str(picture).startswith("data:image/jpeg") for picture in pictures)
    assert "clip_tiny against caption_characters" in " ".join(page.words.split())


def test_a_side_that_is_nothing_is_one_line(two: Path, read_only_pool: Pool) -> None:
    pool = curate.open(two)
    with pytest.raises(UsageError, match="'?othr'?.*other"):
        pool.compare("usual", "othr")
    with pytest.raises(UsageError, match="are one"):
        pool.compare("usual", "usual")
    with pytest.raises(UsageError, match="share"):
        pool.compare("usual", "other", 30)
    with pytest.raises(UsageError, match="caption is no policy"):
        pool.compare("usual", "caption")


def test_the_command_prints_a_table_and_json(curate: Callable, two: Path) -> None:
    told = curate("compare", two, "usual", "other").out
    assert "rows that either judged" in told
    assert "Jaccard" in told and "domain" in told and "only A" in told
    found = json.loads(curate("compare", two, "usual", "other", "--format", "json").out)
    assert found["rows"] >= found["kept_a"] >= found["both"] and found["page"] is None
