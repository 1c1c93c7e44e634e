"""Phrases of a pool against a count that looks at every run of words of every caption."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.derive.counted import PhrasesReport, count_phrases
from curate.derive.phrases import Phrases, split
from curate.derive.settings import DeriveSettings
from curate.errors import IdentityError
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.progress import Silent
from curate.settings import build
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.score.pools import Row, jpeg, make_pool, noise

SAID = Phrases(captions=3, shortest=2, longest=4)
COLUMNS = ("caption_copies", "phrase_words", "phrase_captions", "phrase_share")
IMAGE = jpeg(noise(1))


def derive(pool: Pool, said: Phrases = SAID, bucket_rows: int = 1 << 20, name: str = "phrases") -> PhrasesReport:
    with claim(pool, {}) as run:
        return count_phrases(pool, run, name, said, Crew(inline, bucket_rows), Silent())


def found(pool: Pool, name: str = "phrases") -> list[tuple[object, ...]]:
    table = pool.snapshot(f"scores_{name}").read(["part", "row", *COLUMNS]).sort_by([("part", "ascending"), ("row", "ascending")])
    return [tuple(line[column] for column in COLUMNS) for line in table.to_pylist()]


def normal(caption: str | None) -> tuple[str, ...]:
    text = unicodedata.normalize("NFKC", caption or "").lower()
    kept = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in text)
    return tuple(re.sub(r"([\u4e00-\u9fff\u3040-\u30ff])", r" \1 ", kept).split())


def counted(captions: Sequence[str | None], said: Phrases) -> list[tuple[object, ...]]:
    """The definition, word for word."""
    texts = [normal(caption) for caption in captions]
    runs = {
        text: {text[a : a + n] for n in range(said.shortest, said.longest + 1) for a in range(len(text) - n + 1)} for text in set(texts)
    }
    having = Counter(itertools.chain.from_iterable(runs.values()))
    copies, answers = Counter(texts), list[tuple[object, ...]]()
    for text in texts:
        if not text:
            answers.append((None, None, None, None))
            continue
        common = {run: having[run] for run in runs[text] if having[run] >= said.captions}
        best = max(((len(run), count) for run, count in common.items()), default=(0, None))
        inside = {at + more for run in common for at in range(len(text)) if text[at : at + len(run)] == run for more in range(len(run))}
        answers.append((copies[text], *best, len(inside) / len(text)))
    return answers


def drawn(rows: int, seed: int = 0) -> list[str | None]:
    """Captions of few words, some of them equal, many with a phrase in common."""
    draw = np.random.default_rng(seed)
    words = ["red", "Dog", "house", "on", "a", "white", "background", "stock", "photo", "猫", "it's", "№5"]
    made: list[str | None] = [" ".join(draw.choice(words, draw.integers(0, 8))) for _ in range(rows)]
    made[::5] = [f"{text} - Stock Photo!" for text in made[::5]]
    made[1::7] = [f"stock photo of {text}: isolated on a white background" for text in made[1::7]]
    made[2::9], made[3::50] = [made[1]] * len(made[2::9]), [None] * len(made[3::50])
    return made


@pytest.mark.parametrize(("bucket_rows", "said"), [(1 << 20, SAID), (40, SAID), (40, Phrases(captions=2, shortest=1, longest=9))])
def test_every_row_is_told_what_counting_gives(tmp_path: Path, bucket_rows: int, said: Phrases) -> None:
    captions = drawn(230)
    rows = [Row(text, IMAGE if at % 3 else None) for at, text in enumerate(captions)]
    pool = make_pool(tmp_path / "pool", [rows[:100], rows[100:200], rows[200:]])
    report = derive(pool, said, bucket_rows)
    wanted = counted(captions, said)
    assert found(pool) == [tuple(pytest.approx(value) if isinstance(value, float) else value for value in line) for line in wanted]
    assert report == PhrasesReport("scores_phrases", 3, sum(line[0] is not None for line in wanted), recomputed=True)
    lengths = {line[1] for line in wanted}
    assert lengths >= {None, 2, 4} and (0 in lengths) == (said == SAID)


def test_nothing_is_counted_twice_and_changed_settings_count_anew(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row(text, IMAGE) for text in drawn(40)]])
    derive(pool)
    files = pool.snapshot("scores_phrases").files
    assert not derive(pool).recomputed and pool.snapshot("scores_phrases").files == files
    assert derive(pool, Phrases(captions=2)).recomputed
    assert found(pool) == counted(drawn(40), Phrases(captions=2))
    with pytest.raises(IdentityError, match="'scores_base' of this pool holds other scores"):
        other = pa.table({"row": pa.array(range(40), pa.int32())})
        with claim(pool, {}) as run:
            run.add("scores_base", pa.schema([("part", pa.int32()), ("row", pa.int32()), ("basis", pa.string())]))
            run.commit("scores_base", [pool.write_part("scores_base", 0, other, "x", pool.snapshot("scores_base").schema)])
        derive(pool, name="base")


def test_words_of_scripts_without_spaces() -> None:
    assert split(pa.array(["猫が好き cat", "สวัสดี", "кот и пёс"])).to_pylist() == [
        ["猫", "が", "好", "き", "cat"], list("สวัสดี"), ["кот", "и", "пёс"],
    ]  # fmt: skip


def test_the_policy_drops_what_is_wording_of_the_pool(tmp_path: Path) -> None:
    shared = [f"image may contain one or more people {name}" for name in "abcde"]
    own = ["a dog in the snow", "a dog on the beach at noon"]
    pool = make_pool(tmp_path / "pool", [[Row(text, IMAGE) for text in [*shared, *own, *["closeup"] * 11]]])
    derive(pool, Phrases(captions=5))
    with claim(pool, {}) as run:
        filter_pool(pool, run, FilterSettings(policy="caption_boilerplate"))
    reasons = pool.snapshot("decisions_caption_boilerplate").read(["row", "reason"]).sort_by("row")["reason"].to_pylist()
    assert reasons == ["caption_boilerplate"] * 5 + [None] * 2 + ["caption_repeated"] * 11


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for said in (
        {"phrases": {"shortest": 5, "longest": 4}},
        {"phrases": {}, "of": "l14"},
        {"phrases": {}, "normsim": {"target": {"path": "x"}}},
    ):
        with pytest.raises(Exception, match="shortest|table of their own"):
            build(DeriveSettings, {"name": "x", **said})
