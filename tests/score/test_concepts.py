"""Which concepts a caption names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import SettingsError
from curate.score.concepts import ConceptScorer, spaced
from curate.score.scorer import Batch


def scorer(folder: Path, text: str, **more: bool) -> ConceptScorer:
    (folder / "concepts.txt").write_text(text, encoding="utf-8")
    return ConceptScorer(path=str(folder / "concepts.txt"), **more)


def named(one: ConceptScorer, *captions: str | None) -> list[list[int]]:
    rows = pa.table({"caption": pa.array(captions, pa.string())})
    with one.open() as opened:
        return opened.score(Batch(rows, np.zeros(len(captions), np.int64), [])).columns.column(0).to_pylist()


def test_whole_words_between_spaces_and_punctuation(tmp_path: Path) -> None:
    one = scorer(tmp_path, "dog\nhot dog\ncat\nU.S.\n\nNew York\n")
    assert named(one, "a hot dog, please!", "dogma", "cat:dog", "the U.S. flag", "New  York\tcity", "new york", "hotdog", "", None) == [
        [0, 1], [], [0, 2], [3], [5], [], [], [], [],
    ]  # fmt: skip


def test_capitals_can_be_folded(tmp_path: Path) -> None:
    assert named(scorer(tmp_path, "dog\nStraße\n", match_case=False), "DOG in the STRASSE") == [[0, 1]]


def test_scripts_without_spaces_need_none(tmp_path: Path) -> None:
    one = scorer(tmp_path, "犬\n東京\nแมว\ndog\n")
    assert named(one, "東京の犬", "มีแมวหนึ่งตัว", "犬dog", "犬 dog") == [[0, 1], [2], [0], [0, 3]]


def test_all_at_once_is_one_by_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    words = [f"w{number}" for number in range(60)]
    entries = list(dict.fromkeys(" ".join(draw.choice(words, size=draw.integers(1, 4))) for _ in range(200)))
    captions = [" ".join(draw.choice([*words, ",", "!"], size=draw.integers(0, 30))) for _ in range(300)]
    wanted = [[number for number, entry in enumerate(entries) if f" {entry} " in spaced(caption)] for caption in captions]
    assert named(scorer(tmp_path, "\n".join(entries)), *captions) == wanted
    assert sum(map(len, wanted)) > 300


@pytest.mark.parametrize("caption", ["\0", "\ud83d", "😀" * 1000, "\u202eabc", "a" * 100_000, "," * 10_000])
def test_hostile_captions_name_nothing(tmp_path: Path, caption: str) -> None:
    assert named(scorer(tmp_path, "dog\n"), caption.encode("utf-8", "ignore").decode()) == [[]]


def test_a_list_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    for text, told in {
        "": "holds no entry",
        "dog\ncat\ndog\n": "line 3: 'dog' stands in line 1 already",
        "U.S.\nU . S .": "line 2: 'U . S .' stands in line 1",
    }.items():
        with pytest.raises(SettingsError, match=told):
            scorer(tmp_path, text).identity()
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        ConceptScorer(path=str(tmp_path / "none.txt")).identity()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="binary cannot be read"):
        ConceptScorer(path=str(tmp_path / "binary")).identity()


def test_identity_is_that_of_the_lists_bytes(tmp_path: Path) -> None:
    first = scorer(tmp_path, "dog\n").identity()
    (tmp_path / "elsewhere").mkdir()
    assert scorer(tmp_path / "elsewhere", "dog\n").identity() == first
    assert scorer(tmp_path, "dog\ncat\n").identity() != first and scorer(tmp_path, "dog\n", match_case=False).identity() != first
