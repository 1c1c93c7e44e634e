"""Whether a caption names a class: a word whose first sense in WordNet is in a list, as DataComp's text-based filter has it."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from curate.errors import SettingsError
from curate.score.scorer import ROW_COLUMNS, Batch, Opened, Scored
from curate.settings import Settings
from curate.stage import identity_of

COLUMN = "caption_entity"
_PARTS = ("noun", "verb", "adj", "adv")  # in the order in which a word's senses are listed
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Morphy's rules of detachment (WordNet, morphy(7WN)), and `ves` as NLTK has it."""


class SynsetScorer(Settings):
    """Says whether a word of the caption has its first WordNet sense among the classes of `wnids`.

    `wordnet` is the folder of WordNet's files (index.noun, noun.exc, …): Debian's package wordnet-base, or corpora/wordnet of
    NLTK's data. `wnids` has one class a line, as n01440764; what follows on the line is not read. Words are runs of the caption
    without white space, punctuation and all, in lower case; a word's senses are those of its base forms, nouns first.
    """

    wordnet: str = "/usr/share/wordnet"
    wnids: str = Field(min_length=1)

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 1

    @property
    def needs(self) -> pa.Schema:
        """Caption."""
        return pa.schema([ROW_COLUMNS.field("caption")])

    @property
    def adds(self) -> pa.Schema:
        """One boolean."""
        comment = "whether a word of the caption has its first WordNet sense in the list of classes"
        return pa.schema([pa.field(COLUMN, pa.bool_(), metadata={"class": "scores", "comment": comment})])

    def classes(self) -> frozenset[int]:
        """Offsets of the listed synsets. Raises SettingsError when a line is none."""
        found = set()
        for number, line in enumerate(_lines(Path(self.wnids), "wnids"), 1):
            if line.strip():
                if not re.match(r"[a-z]\d{8}\b", line):
                    raise SettingsError(f"{self.wnids}, line {number}: {line.strip()[:40]!r} is no WordNet id, such as n01440764")
                found.add(int(line[1:9]))
        if not found:
            raise SettingsError(f"{self.wnids} holds no WordNet id: write one a line, such as n01440764")
        return frozenset(found)

    def identity(self) -> str:
        """Changes with the bytes of the list and of WordNet, wherever they lie."""
        classes, digest = self.classes(), hashlib.sha256()
        for name in _names():
            digest.update("\n".join(_lines(Path(self.wordnet) / name, "wordnet")).encode())
        return identity_of("SynsetScorer", self.version, {"wnids": sorted(classes), "wordnet": digest.hexdigest()})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Reads WordNet's indices."""
        wordnet, classes = WordNet.read(Path(self.wordnet)), self.classes()

        @functools.lru_cache(1 << 20)
        def is_entity(word: str) -> bool:
            return wordnet.first_sense(word) in classes

        def score(batch: Batch) -> Scored:
            captions = batch.rows.column("caption").to_pylist()
            found = [any(is_entity(word) for word in (caption or "").split()) for caption in captions]
            return Scored(pa.RecordBatch.from_arrays([pa.array(found, pa.bool_())], schema=self.adds))

        yield Opened(None, score)


@dataclass(frozen=True)
class WordNet:
    """For each part of speech: the first synset of each word, and the base forms of irregular ones."""

    first: dict[str, dict[str, int]]
    irregular: dict[str, dict[str, list[str]]]

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        """From WordNet's own files (format: wndb(5WN)). Raises SettingsError."""
        first = {part: _index(folder / f"index.{part}") for part in _PARTS}
        return cls(first, {part: _exceptions(folder / f"{part}.exc") for part in _PARTS})

    def first_sense(self, word: str) -> int | None:
        """Offset of the word's first synset: of its first base form that is a noun, else verb, adjective, adverb."""
        word = word.lower()
        for part in _PARTS:
            form = self._base(word, part)
            if form is not None:
                return self.first[part][form]
        return None

    def _base(self, word: str, part: str) -> str | None:
        """The word itself where it is listed, else its first base form that is: endings go once, as in WordNet's own morphy."""
        others = self.irregular[part].get(word) or [word.removesuffix(old) + new for old, new in _ENDINGS[part] if word.endswith(old)]
        return next((form for form in (word, *others) if form in self.first[part]), None)


def _names() -> list[str]:
    return [name for part in _PARTS for name in (f"index.{part}", f"{part}.exc")]


def _index(path: Path) -> dict[str, int]:
    """Lemma -> first synset. A line: lemma, part of speech, n, number of pointers, pointers, n, tagged senses, n offsets."""
    found = {}
    for number, line in enumerate(_lines(path, "wordnet"), 1):
        if line.startswith(" "):  # the licence
            continue
        fields = line.split()
        try:
            found[fields[0]] = int(fields[6 + int(fields[3])])
        except (IndexError, ValueError):
            raise SettingsError(f"{path}, line {number} is not one of WordNet's index") from None
    return found


def _exceptions(path: Path) -> dict[str, list[str]]:
    """Irregular form -> base forms."""
    return {fields[0]: fields[1:] for line in _lines(path, "wordnet") if (fields := line.split())}


def _lines(path: Path, key: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"score.synsets.{key}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
