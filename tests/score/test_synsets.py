"""DataComp's text-based filter: the first sense of each word, over files in WordNet's own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import SettingsError
from curate.score.scorer import Batch
from curate.score.synsets import SynsetScorer, WordNet

INDEX = {
    "noun": """  1 This software is licensed
dog n 2 4 @ ~ #m %p 2 1 02084071 10114209
run n 1 2 @ + 1 0 00189565
goose n 1 1 @ 1 0 01855672
wolf n 1 0 1 0 02114100
fish n 1 1 @ 1 0 02512053
leaf n 1 1 @ 1 0 13152742
leave n 1 1 @ 1 0 01062817
pony n 1 1 @ 1 0 02382437
fireman n 1 1 @ 1 0 10091651
axis n 1 1 @ 1 0 13875970
axe n 1 1 @ 1 0 02764044
""",
    "verb": """run v 2 1 @ 2 1 01926311 02075049
sing v 1 1 @ 1 0 01731031
bake v 1 1 @ 1 0 00330144
""",
    "adj": "red a 1 1 & 1 0 00381097\nfine a 1 1 & 1 0 01080297\n",
    "adv": "fast r 1 1 ! 1 0 00087178\n",
}
EXCEPTIONS = {"noun": "geese goose\naxes axe axis\nfish fish\n", "verb": "ran run\nsang sing\n", "adj": "", "adv": ""}
SENSES = {
    "dog": 2084071, "Dogs": 2084071, "dog,": None, "geese": 1855672, "run": 189565, "ran": 1926311, "sang": 1731031, "singing": 1731031,
    "baked": 330144, "baking": 330144, "wolves": 2114100, "leaves": 1062817, "ponies": 2382437, "firemen": 10091651, "axes": 2764044,
    "redder": None, "finest": 1080297, "fast": 87178, "faster": None, "s": None, "": None,
    "fish": 2512053, "fishes": 2512053, "dogses": None,
}  # fmt: skip


def small_wordnet(folder: Path) -> Path:
    """A few words in WordNet's own format, and a list of classes; returns the folder."""
    for part in INDEX:
        (folder / f"index.{part}").write_text(INDEX[part])
        (folder / f"{part}.exc").write_text(EXCEPTIONS[part])
    (folder / "wnids.txt").write_text("n02084071 dog\n\nn01855672\nv01926311\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_wordnet(tmp_path)


def scorer(folder: Path) -> SynsetScorer:
    return SynsetScorer(wordnet=str(folder), wnids=str(folder / "wnids.txt"))


def test_first_senses_by_morphys_rules(folder: Path) -> None:
    wordnet = WordNet.read(folder)
    assert {word: wordnet.first_sense(word) for word in SENSES} == SENSES


def test_captions_with_a_class(folder: Path) -> None:
    captions = ["two Dogs", "a dog, sleeping", "the run", "he ran home", "wild\tgeese\n", "", None, "dog" * 9000, "\u202e犬 😀"]
    with scorer(folder).open() as opened:
        found = opened.score(Batch(pa.table({"caption": captions}), np.zeros(len(captions), np.int64), [])).columns
    assert found.column(0).to_pylist() == [True, False, False, True, True, False, False, False, False]


def test_what_is_no_wordnet_and_no_list_is_told_in_one_line(folder: Path) -> None:
    first = scorer(folder).identity()
    (folder / "wnids.txt").write_text("n01855672\nn02084071\nv01926311\n")
    assert scorer(folder).identity() == first
    for name, text, told in [
        ("wnids.txt", "n0208407\n", "wnids.txt, line 1: 'n0208407' is no WordNet id, such as n01440764"),
        ("wnids.txt", "\n", "holds no WordNet id"),
        ("index.verb", "run v 1 nine\n", "index.verb, line 1 is not one of WordNet's index"),
    ]:
        (folder / name).write_text(text)
        with pytest.raises(SettingsError, match=told), scorer(folder).open():
            pass
        (folder / name).write_text("n02084071\n")
    (folder / "noun.exc").unlink()
    with pytest.raises(SettingsError, match="score.synsets.wordnet: .*noun.exc cannot be read: No such file"):
        scorer(folder).identity()
