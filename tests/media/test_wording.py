"""Repetition against a count by hand, and what is taken for a word."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from curate.media.text import words
from curate.media.wording import is_word, wording


def in_ngrams(text: str, n: int, *, most_frequent: bool) -> float:
    """By trying every pair of places: which characters lie in an n-gram that stands elsewhere too."""
    found = [word.casefold() for word in words(text)]
    starts = range(len(found) - n + 1)
    same = {at: [other for other in starts if found[other : other + n] == found[at : at + n]] for at in starts}
    often = max(map(len, same.values()), default=0)
    if often < 2:
        return 0.0
    groups = [places for places in same.values() if len(places) == often] if most_frequent else [[at for at in starts if len(same[at]) > 1]]
    inside = [{at + more for at, more in itertools.product(places, range(n))} for places in groups]
    return max(sum(len(found[at]) for at in places) for places in inside) / len("".join(found))


def test_repetition_is_what_counting_gives() -> None:
    draw, seen = np.random.default_rng(0), set()
    vocabulary = ["a", "of", "Stock", "stock", "photo", "White", "background,", "|", "猫", "it's"]
    for _ in range(300):
        text = " ".join(draw.choice(vocabulary, draw.integers(1, 25)))
        found, said = wording(text), [word.casefold() for word in words(text)]
        if not said:
            assert found.repeated_words is found.top_bigram is found.duplicate_5grams is None
            continue
        assert found.repeated_words == sum(word in said[:at] for at, word in enumerate(said)) / len(said)
        assert found.top_bigram == pytest.approx(in_ngrams(text, 2, most_frequent=True), abs=1e-12)
        assert found.duplicate_5grams == pytest.approx(in_ngrams(text, 5, most_frequent=False), abs=1e-12)
        seen |= {found.top_bigram > 0, found.duplicate_5grams > 0}
    assert seen == {True, False}


def test_gophers_examples() -> None:
    found = wording("the cat sat on the mat and the cat sat on the mat")
    assert found.top_bigram == pytest.approx(12 / 37)  # the cat, or the mat, twice
    assert found.duplicate_5grams == pytest.approx(34 / 37)  # all but "and"
    assert wording("stock photo stock photo stock photo").top_bigram == 1
    assert wording("a photo of a dog").word_length == 2.4


@pytest.mark.parametrize(
    "token",
    ["dog", "well-known", "(left),", "3d", "mp3", "covid-19", "Angstschweiß", "rhythm", "lønnsspørsmål", "猫が好き", "'t", "HTML", "é"],
)
def test_words(token: str) -> None:
    assert is_word(token) and wording(token).non_words == 0


@pytest.mark.parametrize(
    "token", ["-", "2017", "1920x1080", "B07XYZ123", "sku_red", "IMG_1234.jpg", "photo.PNG", "DSCF0012", "https://a.test/x", "www.a.test",
              "shop.com", "me@example.org", "xkcdqz", "bcdfghjka"],
)  # fmt: skip
def test_no_words(token: str) -> None:
    assert not is_word(token) and wording(f"a dog {token}").non_words == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "file_name", "url"),
    [
        ("IMG 2034", True, False),
        ("Screenshot 2021-03-04", True, False),
        ("holiday.jpeg on the beach", True, False),
        ("from www.example.org", False, True),
        ("write to me@example.org", False, True),
        ("a picture of St.Peter, 2016", False, False),
        ("", False, False),
    ],
)
def test_file_names_and_addresses(text: str, file_name: bool, url: bool) -> None:
    found = wording(text)
    assert (found.file_name, found.url) == (file_name, url)


def test_scripts_without_spaces_have_no_length_of_words() -> None:
    assert wording("猫が好きです").word_length is None
    assert wording("собака бежит").word_length == 5.5
    assert wording("!!! ---").word_length is wording("").non_words is None
