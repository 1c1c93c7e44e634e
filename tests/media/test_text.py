"""Captions cleaned and measured."""

from __future__ import annotations

import pytest

from curate.media.text import clean, language, remove_controls, statistics


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  a   red\tcircle\n", "a red circle"),
        ("a\x00b\x07c", "a b c"),
        ("x \u202egnp.evil\u202c y", "x gnp.evil y"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("<b>bold</b> text <br/>", "bold text"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("\U0001f469\u200d\U0001f680 lifts off", "\U0001f469\u200d\U0001f680 lifts off"),
        ("\u200d", ""),
        ("a\ud800b", "ab"),
        ("", ""),
    ],
)
def test_clean(text: str, wanted: str) -> None:
    assert clean(text) == wanted
    assert clean(wanted) == wanted


@pytest.mark.parametrize(
    ("text", "characters", "words"),
    [
        ("a red circle", 12, 3),
        ("dog's well-known trick", 22, 3),
        ("\u732b\u304c\u597d\u304d", 4, 4),
        ("iPhone 15 \u624b\u673a\u58f3", 13, 5),
        ("\ud55c\uad6d\uc5b4 \ubb38\uc7a5", 6, 2),
        ("!!! ---", 7, 0),
        ("", 0, 0),
        ("\u0441\u043e\u0431\u0430\u043a\u0430, \u0434\u043e\u043c", 11, 2),
        ("snake_case", 10, 1),
        ("\U00020000\U00020001", 2, 2),
    ],
)
def test_statistics(text: str, characters: int, words: int) -> None:
    found = statistics(text)
    assert (found.characters, found.words) == (characters, words)


def test_controls_go_and_the_rest_stays() -> None:
    assert remove_controls("a\x00b\tc\r\nd\x7f\x85e\ud800") == "ab c  de"
    assert remove_controls("\u00e9\u732b <b>") == "\u00e9\u732b <b>"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a photo of a dog running on the beach", "en"),
        ("ein Hund l\u00e4uft \u00fcber die gr\u00fcne Wiese", "de"),
        ("\u732b\u304c\u597d\u304d\u3067\u3059", "ja"),
        ("un chien qui court sur la plage\nau soleil", "fr"),
    ],
)
def test_language(text: str, code: str) -> None:
    found, probability = language(text)
    assert found == code and 0.3 < probability <= 1.01


@pytest.mark.parametrize("text", ["", "   ", "12345 !!", "\x00\n"])
def test_texts_without_letters_have_no_language(text: str) -> None:
    assert language(text) == (None, 0.0)


def test_language_needs_no_network_and_takes_long_texts() -> None:
    assert language("the quick brown fox " * 10_000)[0] == "en"
