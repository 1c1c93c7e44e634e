"""Columns are found by hand, by a known layout or by name, and are kept under names that every engine takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from curate.errors import InputError
from curate.plan import InputSettings, survey
from curate.plan.columns import Names, detect
from tests.plan import lists

LAION = ["SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "NSFW", "similarity"]
DATACOMP = ["uid", "url", "text", "original_width", "original_height", "clip_b32_similarity_score", "face_bboxes", "sha256"]
COYO = ["id", "url", "text", "width", "height", "image_phash", "text_length", "watermark_score"]


def mapping(names: list[str], **settings: Any) -> str:
    """What the command line would print for a list with these columns."""
    return str(detect("list.csv", names, None, InputSettings(path="list.csv", **settings)))


@pytest.mark.parametrize(
    ("names", "printed"),
    [
        (LAION, "detected LAION list: URL → url, TEXT → caption"),
        (DATACOMP, "detected DataComp list: url → url, text → caption"),
        (COYO, "detected COYO list: url → url, text → caption"),
        (["Image_URL", "Alt", "Label"], "columns by name: Image_URL → url, Alt → caption, Label → label"),
        (["caption", "link"], "columns by name: link → url, caption → caption"),
        (["url"], "columns by name: url → url, no captions"),
    ],
)
def test_known_layouts_are_detected_and_told(names: list[str], printed: str) -> None:
    assert mapping(names) == printed


def test_what_is_set_by_hand_wins() -> None:
    assert mapping(LAION, caption_column="LICENSE") == "detected LAION list: URL → url, LICENSE → caption"
    assert mapping(["a", "b"], preset="none", url_column="a", caption_column="b") == "columns as set: a → url, b → caption"
    assert mapping(["url", "text"], preset="laion") == "LAION list: URL → url, TEXT → caption"


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["url", "captoin"], {"caption_column": "caption"}, "list.csv: there is no column 'caption' .*did you mean 'captoin'"),
        (["adress", "text"], {}, "list.csv: no column looks like a URL column .*'adress'"),
        (["url", "text"], {"preset": "none"}, "set input.url_column"),
        (["url", "words"], {"preset": "laion"}, "there is no column 'TEXT'"),
        (["url"], {"columns": {"sha256": "md6"}}, "there is no column 'md6'"),
    ],
)
def test_a_column_that_is_not_there_is_named(names: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mapping(names, **settings)


def test_a_contradiction_is_no_setting() -> None:
    with pytest.raises(pydantic.ValidationError, match="different columns"):
        InputSettings(path="x", url_column="a", columns={"url": "b"})


@pytest.mark.parametrize(
    ("name", "text", "printed"),
    [
        ("a.tsv", "a cat\thttp://a.com/1\na dog\thttp://a.com/2\n", "detected CC3M list: url → url, caption → caption"),
        ("a.tsv", "http://a.com/1\ta cat\nhttp://a.com/2\ta dog\n", "detected CC12M list: url → url, caption → caption"),
        ("a.csv", "http://a.com/1\nhttp://a.com/2\n", "columns by name: url → url, no captions"),
        ("a.csv", "url;text\nhttp://a.com/1;one, two\nhttp://a.com/2;x\n", "columns by name: url → url, text → caption"),
    ],
)
def test_lists_without_a_header_are_recognised(tmp_path: Path, name: str, text: str, printed: str) -> None:
    found = survey(InputSettings(path=lists.write(tmp_path / name, text)))
    assert (str(found.mapping), found.rows) == (printed, 2)


def test_header_and_layout_can_be_forced(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "a.tsv", "no address here\tneither here\na dog\thttp://a.com/2\n")
    assert survey(InputSettings(path=path, preset="cc3m")).rows == 2
    assert survey(InputSettings(path=path, header=False)).rows == 2
    wide = lists.write(tmp_path / "b.csv", "1,http://a.com/1,x\n2,http://a.com/2,y\n")
    found = survey(InputSettings(path=wide, url_column="column_1", caption_column="column_2"))
    assert (found.rows, str(found.mapping)) == (2, "columns as set: column_1 → url, column_2 → caption")


def test_pool_names_are_clean_and_distinct_without_case() -> None:
    settings = InputSettings(path="x", columns={"sha256": "checksum"})
    names = Names(detect("x", ["url", "checksum"], None, settings))
    first, second = names.of_file(), names.of_file()
    inputs = ["url", "URL", "a b", "a_b", "a,b", "sha256", "checksum", "", "tab\tname"]
    found = [first(name) for name in inputs]
    assert found == [f"source.{name}" for name in ("url", "URL_2", "a_b", "a_b_2", "a_b_3", "sha256_2", "sha256", "column", "tab_name")]
    assert second("URL") == "source.url"
    assert [first(name) for name in reversed(inputs)] == found[::-1]
