"""How far a guessed language can be trusted, measured on texts that were not fitted: names of emoji in fourteen languages."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from emoji import EMOJI_DATA, config

from curate.media.text import calibrated, language
from curate.score.caption import CaptionScorer
from curate.score.scorer import Batch
from tests.bench.languages import Guesses, guessed, is_fitted, reliability

LANGUAGES = tuple(["en", "de", "es", "fr", "it", "pt", "fa", "id", "ja", "ko", "ru", "tr", "zh", "ar"])
LARGEST_ERROR = 0.12  # these languages are easier than the 90 that were fitted, of which it is at most 0.03; of raw scores it is 0.2


@pytest.fixture(scope="module")
def held_out() -> Guesses:
    """As the fit saw the other half."""
    config.load_language(list(LANGUAGES))
    names: dict[str, list[str]] = {code: [] for code in LANGUAGES}
    for point, data in sorted(EMOJI_DATA.items()):
        for code in LANGUAGES if not is_fitted(point) else ():
            if code in data:
                names[code].append(data[code].strip(":").replace("_", " "))
    return guessed(names)


def test_a_probability_is_how_often_guesses_are_right(held_out: Guesses) -> None:
    raw, told = reliability(np.minimum(held_out.score, 1), held_out), reliability(held_out.shipped(), held_out)
    for length, found in told.items():
        assert found["texts"] > 500 and found["ece"] < min(LARGEST_ERROR, 0.65 * raw[length]["ece"]), (length, found, raw[length])


def languages_of(captions: list[str | None], unknown_below: float) -> list[tuple[str | None, float | None]]:
    scorer = CaptionScorer(unknown_below=unknown_below)
    with scorer.open() as opened:
        columns = opened.score(Batch(pa.table({"caption": captions}), np.zeros(len(captions), np.int64), [])).columns
    return list(zip(*(columns[name].to_pylist() for name in ("caption_language", "caption_language_score")), strict=True))


def test_what_cannot_be_told_is_unknown() -> None:
    captions = ["a photo of a dog that runs along the beach in the evening sun", "Nikon Oslo", "", None, "12345"]
    told, guesses = languages_of(captions, 0.5), languages_of(captions, 0)
    assert told[0][0] == "en" and told[0][1] > 0.8 and told[1][0] == "unknown" and told[1][1] < 0.5
    assert [score for _, score in told] == [score for _, score in guesses] and "unknown" not in [code for code, _ in guesses]
    assert told[2:] == guesses[2:] == [(None, None)] * 3
    assert languages_of(captions[:2], 1) == [("unknown", score) for _, score in told[:2]]


def test_more_letters_make_a_guess_surer() -> None:
    letters = np.arange(1, 300)
    for score, english in itertools.product((0.2, 0.5, 0.8, 0.99, 1.0), (True, False)):
        chance = calibrated(np.full(len(letters), score), letters, np.full(len(letters), english))
        assert np.isfinite(chance).all() and (chance > 0).all() and (chance < 1).all()
        assert score < 0.8 or (np.diff(chance) >= 0).all()
    assert language("the quick brown fox jumps over the lazy dog")[1] > language("dog")[1]
