"""What a caption is made of: words that come again, and tokens that are no words; pure functions of a cleaned text.

Repetition and the length of words are measured as Gopher's filters measure documents: Rae et al., "Scaling Language Models"
(arXiv:2112.11446), appendix A.1.1, quality filtering and table A1. Its limits: mean word length 3 to 10 characters, a letter in at
least 80 % of the words, at most 0.20 of the characters in the most frequent 2-gram, at most 0.15 in duplicate 5-grams.
Captions are shorter than documents: look at your own before you take a limit over.
"""

from __future__ import annotations

import collections
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.media.text import is_spaceless, words

_URL = re.compile(r"https?://|\bwww\.\w|\S@\w+(?:[.-]\w+)*\.\w{2}|\w\.(?:com|net|org|info|edu|gov|co\.\w\w)\b", re.IGNORECASE)
_EXTENSION = r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|psd|pdf|mp4|mov|avi)"
_CAMERA = r"(?:(?:IMG|DSC[NF]?|screen ?shot|whatsapp image)[_\- ]?|(?:DCIM|PICT|MVI|GOPR|PXL|VID)[_\-]?)\d{3,}"
_FILE_NAME = re.compile(rf"\w{_EXTENSION}(?!\w)|(?<![^\W_]){_CAMERA}", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{7,}")  # fewer stand together in 0.8 % of German and of Dutch words
_VOWEL = re.compile(r"[aeiouy]")


@dataclass(frozen=True)
class Wording:
    """What `wording` measures. Shares lie between 0 and 1, and are None for a text without words, or without tokens."""

    repeated_words: float | None  # of the words, those that stood before; capitals do not matter
    top_bigram: float | None  # of the words' characters, those in occurrences of the most frequent 2-gram; 0 where none stands twice
    duplicate_5grams: float | None  # of the words' characters, those in 5-grams that stand more than once, each counted once
    word_length: float | None  # mean characters of a word; None where a word is of a script without spaces
    non_words: float | None  # of the tokens between spaces, those that `is_word` refuses
    file_name: bool  # a file's name, or a camera's number, is in it
    url: bool  # a web or mail address is in it


def wording(text: str) -> Wording:
    """Measures a cleaned text. Words are those of `curate.media.text.statistics`, tokens what stands between spaces."""
    found, tokens = [word.casefold() for word in words(text)], text.split()
    file_name, url = _FILE_NAME.search(text) is not None, _URL.search(text) is not None
    of_words = is_word if file_name or url else _is_said
    spaced = bool(found) and not any(map(is_spaceless, {word[0] for word in found}))
    return Wording(
        repeated_words=(len(found) - len(set(found))) / len(found) if found else None,
        top_bigram=_in_most_frequent(found, 2) if found else None,
        duplicate_5grams=_in_duplicates(found, 5) if found else None,
        word_length=sum(map(len, found)) / len(found) if spaced else None,
        non_words=sum(not of_words(token) for token in tokens) / len(tokens) if tokens else None,
        file_name=file_name,
        url=url,
    )


def is_word(token: str) -> bool:
    """Whether what stands between two spaces is a word.

    None are: what has no letter; addresses and file names; codes, in which letters stand beside three digits or more, or beside an
    underscore; Latin letters of which seven in a row are consonants, or five or more and none a vowel (y counts as one).
    """
    return not _URL.search(token) and not _FILE_NAME.search(token) and _is_said(token)


def _is_said(token: str) -> bool:
    if not _LETTERS.search(token) or "_" in token.strip("_") or sum(map(str.isdigit, token)) > 2:
        return False
    return not any(run.isascii() and _unsayable(run) for run in _LETTERS.findall(_plain(token)))


def _unsayable(letters: str) -> bool:
    return _CONSONANTS.search(letters) is not None or (len(letters) > 4 and not _VOWEL.search(letters))


def _plain(token: str) -> str:
    """Lower case without marks: é is e."""
    token = token.lower()
    if token.isascii():
        return token
    return "".join(letter for letter in unicodedata.normalize("NFD", token) if not unicodedata.combining(letter))


def _in_most_frequent(found: Sequence[str], n: int) -> float:
    """Share of the characters in occurrences of the n-gram that stands most often; of equally frequent ones the largest share."""
    counts, places = Counter(_ngrams(found, n)), collections.defaultdict[tuple[str, ...], set[int]](set)
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0
    for at, ngram in enumerate(_ngrams(found, n)):
        if counts[ngram] == most:
            places[ngram].update(range(at, at + n))
    return max(_share(found, inside) for inside in places.values())


def _in_duplicates(found: Sequence[str], n: int) -> float:
    """Share of the characters in n-grams that stand more than once."""
    counts = Counter(_ngrams(found, n))
    return _share(found, {at + offset for at, ngram in enumerate(_ngrams(found, n)) if counts[ngram] > 1 for offset in range(n)})


def _ngrams(found: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(found[start:] for start in range(n)), strict=False)


def _share(found: Sequence[str], inside: set[int]) -> float:
    """Share of the words' characters that are in the words at these places."""
    return sum(len(found[at]) for at in inside) / sum(map(len, found)) if inside else 0.0
