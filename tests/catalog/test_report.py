"""The report: right numbers, harmless text, nothing but itself, and clean in a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.catalog.charts import histogram, number
from curate.catalog.cuts import Cut, cuts_of
from curate.catalog.gather import BINS, Distribution, Gatherer, _edges
from curate.catalog.report import report
from curate.catalog.subsets import read_subset
from curate.catalog.views import connect
from curate.store import Pool
from tests.browser import opened
from tests.catalog import pools

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \" ' & \u202e\x1b[31m"


class Page(HTMLParser):
    """Collects what a page holds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.words = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def evil_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Captions, URLs and hosts that try to be markup, in a folder that does so too."""
    parts = pools.usual_parts()
    parts[0][0].caption, parts[1][0].caption = EVIL, EVIL
    parts[0][5].url = "http://<b>evil</b>.example/<script>alert(2)</script>"
    folder = tmp_path_factory.mktemp("evil")
    return Pool.open(shutil.copytree(pools.build(folder / "pool", parts).path, folder / "<i>pool"))


def test_page_is_one_file_that_asks_for_nothing(read_only_pool: Pool, tmp_path: Path) -> None:
    path = report(read_only_pool, tmp_path / "new" / "page.html", reveal=True)
    page = Page(path)
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]
    assert not page.all("script") and not page.all("iframe")
    assert not [attributes for _, attributes in page.tags if {"style", "onclick", "onerror", "onload"} & set(attributes)]
    addresses = [str(a[name]) for _, a in page.tags for name in ("src", "href") if name in a]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page.text and "@import" not in page.text
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_page_shows_the_funnel_the_cut_and_both_sides(read_only_pool: Pool, tmp_path: Path) -> None:
    page = Page(report(read_only_pool, tmp_path / "page.html", reveal=True))
    assert "33.3%" in page.words and "4 of 12 input rows are kept" in page.words
    assert "clip_score < 0.3 fails" in page.words
    around = page.text[page.text.index('id="cuts"') : page.text.index('id="kept"')]
    cut = around[around.index("<h3>clip_score_low") :]
    above, below = cut[cut.index("Just above") : cut.index("Just below")], cut[cut.index("Just below") :]
    assert [re.findall(r"<b>([\d.]+)</b>", side) for side in (above, below)] == [["0.31", "0.33", "0.35", "0.4", "0.45"], ["0.1", "0.29"]]
    assert "http_not_found" in page.words and "status 404 or 410" in page.words
    assert "b.example" in page.words and "digest, content" in page.words and "-- parameter: clip_cut = 0.30" in page.words


def test_the_same_pool_gives_the_same_page(read_only_pool: Pool, tmp_path: Path) -> None:
    first, second = (report(read_only_pool, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_folder_gets_an_index(read_only_pool: Pool, tmp_path: Path) -> None:
    assert report(read_only_pool, tmp_path / "out") == tmp_path / "out" / "index.html"


def test_text_from_the_web_stays_text(evil_pool: Pool, tmp_path: Path) -> None:
    page = Page(report(evil_pool, tmp_path / "page.html", reveal=True))
    assert "<script>alert(1)</script>" in page.words, "shown as it is written"
    assert not page.all("script") and all(str(image["src"]).startswith("data:image/jpeg") for image in page.all("img"))
    assert "\u202e" not in page.text and "\x1b" not in page.text and "\\u202e" in page.words
    assert "<i>" not in page.text.replace("&lt;i&gt;", "")


def pictures(path: Path) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(str(tag["src"]).split(",", 1)[1]))) for tag in Page(path).all("img")]


def test_pictures_nobody_judged_do_not_leave_the_pool(read_only_pool: Pool, tmp_path: Path) -> None:
    hidden, shown = report(read_only_pool, tmp_path / "a.html"), report(read_only_pool, tmp_path / "b.html", reveal=True)
    assert {max(image.size) for image in pictures(hidden)} == {6}
    assert {max(image.size) for image in pictures(shown)} == {48}
    assert "--reveal" in Page(hidden).words and "--reveal" not in Page(shown).words


def test_only_flagged_pictures_are_veiled_where_there_is_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SCORES_SCHEMA", pools.SCORES_SCHEMA.append(pools.pa.field("nsfw", pools.pa.float32())))
    plain = pools._scores
    values = iter([0.01, 0.9, None] + [0.2] * 20)
    monkeypatch.setattr(pools, "_scores", lambda *given: [line | {"nsfw": next(values)} for line in plain(*given)])
    pool = pools.build(tmp_path / "pool")
    with connect(pool) as connection:
        gatherer = Gatherer(connection, [])
        found = connection.execute("SELECT row, veiled FROM looked WHERE part = 0 AND row < 4 ORDER BY row").fetchall()
    assert gatherer.veil_column == "nsfw"
    assert found == [(0, False), (1, True), (2, True), (3, False)]


def test_a_pool_without_rows_or_images_has_a_page(tmp_path: Path) -> None:
    path = report(Pool.create(tmp_path / "empty"), tmp_path / "page.html")
    assert "0 of 0 input rows are kept" in Page(path).words
    nothing = pools.build(tmp_path / "pool", [[pools.Row("gone", fetch="http_not_found")]])
    assert "http_not_found" in Page(report(nothing, tmp_path / "page.html")).words


def test_an_image_that_cannot_be_read_leaves_a_gap(pool: Pool, tmp_path: Path) -> None:
    for tar in (pool.path / "tars").iterdir():
        tar.unlink()
    assert "no picture" in Page(report(pool, tmp_path / "page.html", reveal=True)).words


# -- distributions


def test_bars_hold_every_row_once_and_part_at_the_cut(read_only_pool: Pool) -> None:
    with connect(read_only_pool) as connection:
        views = Gatherer(connection, cuts_of(connection, read_subset(read_only_pool, "usual"))).cut_views()
    clip = next(view for view in views if view.cut.expression == "clip_score")
    drawn = clip.distribution
    assert drawn is not None and (sum(drawn.kept), sum(drawn.other), drawn.rows) == (4, 3, 7)
    assert (clip.failing, clip.passing) == (2, 5)
    edge = int(np.argmin(np.abs(np.array(drawn.edges) - 0.3)))
    assert drawn.edges[edge] == pytest.approx(0.3) and sum(drawn.kept[:edge]) == 0 and sum(drawn.other[:edge]) == 2


@pytest.mark.parametrize(
    ("low", "high", "whole", "logarithmic", "anchor"),
    [(0.0, 1.0, False, False, 0.3), (1.0, 9.0, True, False, 6.0), (80.0, 4000.0, True, False, 200.0), (10.0, 1e6, False, True, 5000.0)],
)
def test_edges_cover_the_range_and_hold_the_anchor(low: float, high: float, whole: bool, logarithmic: bool, anchor: float) -> None:
    edges = _edges(low, high, whole, logarithmic, anchor)
    assert edges[0] <= low * (1 + 1e-9) and edges[-1] >= high * (1 - 1e-9)
    assert np.isclose(edges, anchor).sum() == 1 and (np.diff(edges) > 0).all() and len(edges) <= BINS + 3


def test_histogram_shades_the_failing_side() -> None:
    drawn = Distribution("x", (0.0, 1.0, 2.0), (0, 3), (1, 0), False, 4)
    low, high = (histogram(drawn, Cut("r", "x", operator, 1.0)) for operator in ("<", ">"))
    assert 'class="failing" x="4.0"' in low and 'class="failing" x="4.0"' not in high
    assert "3 kept, 0 not" in low
    assert [number(value) for value in (0.25, 1234567, 3.0, 12345.6)] == ["0.25", "1,234,567", "3", "12,346"]


# -- a real browser


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_a_complaint(evil_pool: Pool, tmp_path: Path, width: int) -> None:
    shown = opened(report(evil_pool, tmp_path / "page.html", reveal=True), tmp_path, width)
    assert shown.complaints == []
    assert shown.accent_share > 0.002, "the style sheet was refused, or nothing is kept"
