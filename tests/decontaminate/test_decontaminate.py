"""Evaluation pictures planted in pools are found with their evidence, other rows are left alone, and a person has the last word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import curate
from curate.decontaminate.report import DecontaminateReport
from curate.errors import InputError, UsageError
from curate.media.tar import TarWriter
from curate.store import Pool
from tests.catalog.test_report import Page
from tests.decontaminate.planted import CHANGES, Planted, build, decontaminate, evaluation, name_of
from tests.score.pools import Row, jpeg, make_pool, noise

SENTENCE = "A small brown dog, which had been waiting all day; runs across the wet grass towards a red ball"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    return build(folder / "pool", evaluation(folder / "val", 20), 60, CHANGES, part_rows=70)


@pytest.fixture(scope="module")
def found(planted: Planted) -> DecontaminateReport:
    return decontaminate(planted.pool, planted.pool.path.parent / "val", output=planted.pool.path.parent / "page.html")


def evidence(pool: Path) -> list[dict[str, object]]:
    return curate.open(pool).sql("SELECT sample_id, unnest(contamination, recursive := true) FROM samples").rows()


def dirty(pool: Path) -> set[str]:
    return {line["sample_id"] for line in curate.open(pool).sql("SELECT sample_id FROM samples WHERE contaminated").rows()}


def measured(planted: Planted) -> tuple[dict[str, float], float]:
    """Share of the planted rows of each change that are found with the right item; share of the other rows that are."""
    right = {
        line["sample_id"] for line in evidence(planted.pool.path) if line["item"] == f"val/{planted.items.get(str(line['sample_id']))}"
    }
    made, hit = Counter(planted.changes.values()), Counter(how for sample, how in planted.changes.items() if sample in right)
    others = curate.open(planted.pool.path).sql("SELECT count(contaminated) AS rows FROM samples").rows()[0]["rows"] - len(planted.items)
    return {how: hit[how] / made[how] for how in made}, len(dirty(planted.pool.path) - planted.items.keys()) / others


def test_planted_items_are_found_and_no_other_row(planted: Planted, found: DecontaminateReport) -> None:
    recall, wrong = measured(planted)
    assert min(recall.values()) >= 0.98 and wrong == 0
    assert found.contaminated == len(dirty(planted.pool.path)) and found.cleared == 0
    assert found.sets[0].items == found.sets[0].found == 20
    lines = {(line["sample_id"], line["method"]): line for line in evidence(planted.pool.path) if not line["cleared"]}
    for sample, how in planted.changes.items():
        if how == "copied":
            assert lines[sample, "bytes"]["distance"] == 0
        else:
            line = lines.get((sample, "perceptual")) or lines[sample, "descriptor"]
            assert line["similarity"] >= 0.95
    assert {method for _, method in lines} == {"bytes", "perceptual", "descriptor"}


def test_the_page_shows_both_pictures(planted: Planted, found: DecontaminateReport) -> None:
    assert found.page is not None
    page = Page(found.page)
    pictures = [str(image["src"]) for image in page.all("img")]
    assert len(pictures) == 2 * min(200, len(evidence(planted.pool.path)))
    assert all(picture.startswith("data:image/jpeg") for picture in pictures) and not page.all("script")
    assert f"val/{name_of(0)}" in page.words and "--clear" in page.words


def test_nothing_of_the_evaluation_set_stays_in_the_pool(planted: Planted, found: DecontaminateReport) -> None:
    assert not list((planted.pool.path / "tmp").rglob("*evaluations*"))


def test_a_policy_drops_what_is_contaminated(planted: Planted, found: DecontaminateReport) -> None:
    pool = curate.open(planted.pool.path)
    pool.filter("decontaminated")
    dropped = pool.sql("SELECT sample_id FROM samples WHERE reason = 'contaminated'", "decontaminated").rows()
    assert {line["sample_id"] for line in dropped} == dirty(planted.pool.path)


def test_what_was_cleared_is_told_and_not_contaminated(planted: Planted, found: DecontaminateReport, tmp_path: Path) -> None:
    pool, before = curate.open(planted.pool.path), dirty(planted.pool.path)
    one, item = next(iter(planted.items.items()))
    alike = {str(line["sample_id"]) for line in evidence(pool.path) if line["item"] == f"val/{name_of(7)}"}
    (tmp_path / "clear.txt").write_text(f"# looked at\n{one}\tval/{item}\nval/{name_of(7)}\nval/none.jpg\n")
    again = decontaminate(planted.pool, planted.pool.path.parent / "val", clear=tmp_path / "clear.txt")
    assert dirty(pool.path) == before - alike - {one}
    assert again.cleared == len(alike | {one}) and again.unused_clearances == 1
    assert {str(line["sample_id"]) for line in evidence(pool.path) if line["cleared"]} == alike | {one}
    decontaminate(planted.pool, planted.pool.path.parent / "val")
    assert dirty(pool.path) == before


def test_what_is_cleared_hides_nothing_that_is_not(tmp_path: Path) -> None:
    """A picture that stands in two sets, with room for one line of evidence."""
    pool, shown = make_pool(tmp_path / "pool", [[Row("a", jpeg(noise(1)))]]), jpeg(noise(1))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.jpg").write_bytes(shown)
    both = [tmp_path / "first", tmp_path / "second"]
    for cleared, left in (("first/picture.jpg\n", 1), ("first/picture.jpg\nsecond/picture.jpg\n", 0)):
        (tmp_path / "clear.txt").write_text(cleared)
        found = decontaminate(pool, *both, clear=tmp_path / "clear.txt", evidence=1, perceptual=False)
        assert (found.contaminated, len(evidence(pool.path))) == (left, 1)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three captions, one of which an evaluation set has in other spelling."""
    rows = [Row(SENTENCE.upper(), jpeg(noise(1))), Row("a small brown dog", jpeg(noise(2))), Row(None, None), Row(None, jpeg(noise(3)))]
    return make_pool(tmp_path / "pool", [rows]).path


def benchmark(folder: Path) -> Path:
    """A set as CLIP_benchmark has it: a folder for each split with numbered tars, and lists beside them."""
    for number, split in enumerate(("test", "train")):
        (folder / split).mkdir(parents=True)
        with TarWriter(folder / split / "0.tar") as tar:
            tar.add("s0000000.webp", b"no image")
            tar.add("s0000000.txt", f"something else\n{SENTENCE if not number else 'nothing'}".encode())
            tar.add("s0000001.jpg", jpeg(noise(3)) if number else jpeg(noise(9)))
            tar.add("s0000001.cls", b"3")
        (folder / split / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("dog\n")
    return folder


def test_captions_count_when_asked_for(small: Path, tmp_path: Path) -> None:
    pool, path = Pool.open(small), benchmark(tmp_path / "wds_small")
    found = decontaminate(pool, path, perceptual=False)
    assert (found.contaminated, found.rows, found.sets[0].items, found.sets[0].undecodable) == (1, 3, 4, 2)
    assert {(line["method"], line["item"]) for line in evidence(small)} == {("bytes", "wds_small/train/0.tar/s0000001")}
    found = decontaminate(pool, f"words={path}", perceptual=False, caption_words=13)
    (line,) = (line for line in evidence(small) if line["method"] == "caption")
    assert line["item"] == "words/test/0.tar/s0000000" and found.contaminated == 2 and found.sets[0].by["caption"] == 1
    assert line["words"] == "a small brown dog which had been waiting all day runs across the"
    assert decontaminate(pool, path, perceptual=False, caption_words=20).contaminated == 1


def test_wrong_calls_are_one_line(small: Path, tmp_path: Path, planted: Planted) -> None:
    pool = Pool.open(small)
    with pytest.raises(UsageError, match=r"phash.*perceptual=false"):
        decontaminate(pool, planted.pool.path.parent / "val")
    with pytest.raises(InputError, match="no file or folder"):
        decontaminate(pool, tmp_path / "none", perceptual=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither images"):
        decontaminate(pool, tmp_path / "empty", perceptual=False)
    with pytest.raises(UsageError, match="NAME=PATH"):
        decontaminate(pool, planted.pool.path.parent / "val", planted.pool.path.parent / "val", perceptual=False)
    with pytest.raises(InputError, match="what is cleared"):
        decontaminate(pool, planted.pool.path.parent / "val", clear=tmp_path / "none.txt", perceptual=False)


def test_the_command_tells_and_writes(small: Path, tmp_path: Path, curate: Callable) -> None:
    said = curate("decontaminate", small, "--against", f"a={benchmark(tmp_path / 'wds')}", "perceptual=false", "--format", "json")
    assert said.code == 0 and json.loads(said.out)["contaminated"] == 1
    told = curate("decontaminate", small, "--against", f"a={tmp_path / 'wds'}", "perceptual=false", "-o", tmp_path / "page.html")
    assert "1 of 3 rows" in told.out and "a: 1 of 4 items" in told.out and (tmp_path / "page.html").is_file()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_bar_on_thirty_thousand_rows(tmp_path: Path) -> None:
    """Recall of at least 98 % of copies, under JPEG, resizing and cropping, at most one row in 10,000 wrongly; both are printed."""
    many = build(tmp_path / "pool", evaluation(tmp_path / "val", 500), 31_000, CHANGES)
    decontaminate(many.pool, tmp_path / "val", output=tmp_path / "page.html")
    recall, wrong = measured(many)
    print(recall, wrong)
    assert min(recall.values()) >= 0.98 and wrong <= 1e-4
