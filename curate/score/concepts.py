"""Which entries of a list a caption names: what balancing by concept counts.

MetaCLIP (arXiv:2309.16671, section 3.2) matches by substring between spaces, after `,.;:?!` and backticks were set apart. Entries that
begin or end in a script written without spaces need none on that side (Meta CLIP 2, arXiv:2507.22062). Beyond what is published,
an entry's own punctuation is set apart as well, so that `U.S.` can be found, and a run of white space counts as one space. All
entries are searched for at once (Aho and Corasick 1975), so time grows with the captions and not with the list.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ahocorasick
import pyarrow as pa

from curate.errors import SettingsError
from curate.media.text import is_spaceless
from curate.score.scorer import ROW_COLUMNS, Batch, Opened, Scored
from curate.settings import Settings
from curate.stage import identity_of

COLUMN = "concept_ids"
_PUNCTUATION = re.compile(r"([,.;:?!`])")
_SPACE = re.compile(r"\s+")


class ConceptScorer(Settings):
    """The entries of `path` that each caption names, as their line numbers from 0, ascending; empty where it names none.

    `path` is a text file of one entry a line, in UTF-8; it must be where every worker can read it. As published, capitals
    matter; `match_case: false` folds them.
    """

    path: str
    match_case: bool = True

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 1

    @property
    def needs(self) -> pa.Schema:
        """The caption."""
        return pa.schema([ROW_COLUMNS.field("caption")])

    @property
    def adds(self) -> pa.Schema:
        """One column, a list of int32."""
        comment = "lines of the concept list that the caption names, from 0"
        return pa.schema([pa.field(COLUMN, pa.list_(pa.int32()), metadata={"class": "scores", "comment": comment})])

    def entries(self) -> list[str]:
        """The list's lines, without white space at their ends. Raises SettingsError when there are none, or one stands twice."""
        path = Path(self.path)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"score.concepts.path: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        seen: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            if line and (first := seen.setdefault(self._searched(line), number)) != number:
                raise SettingsError(f"{path}, line {number}: {line!r} stands in line {first} already")
        if not seen:
            raise SettingsError(f"{path} holds no entry: write one concept a line")
        return lines

    def identity(self) -> str:
        """Changes with the list's bytes, wherever it lies."""
        self.entries()
        sha256 = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        return identity_of("ConceptScorer", self.version, {"sha256": sha256, "match_case": self.match_case})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Builds the automaton, whose memory grows with the list."""
        yield Opened(None, functools.partial(self._score, self.automaton()))

    def automaton(self) -> Any:
        """Finds all entries in a text that `spaced` gave."""
        found = ahocorasick.Automaton()
        for number, entry in enumerate(self.entries()):
            if entry:
                found.add_word(self._searched(entry), number)
        found.make_automaton()
        return found

    def _folded(self, text: str) -> str:
        return text if self.match_case else text.casefold()

    def _searched(self, entry: str) -> str:
        """The entry as it stands in a text, with the spaces that a match must have around it."""
        entry = spaced(self._folded(entry)).strip()
        before, after = ("" if is_spaceless(entry[at]) else " " for at in (0, -1))
        return f"{before}{entry}{after}"

    def _score(self, automaton: Any, batch: Batch) -> Scored:
        captions = batch.rows.column("caption").to_pylist()
        found = [sorted({number for _, number in automaton.iter(spaced(self._folded(caption or "")))}) for caption in captions]
        return Scored(pa.RecordBatch.from_arrays([pa.array(found, pa.list_(pa.int32()))], schema=self.adds))


def spaced(text: str) -> str:
    """The text with punctuation set apart and single spaces, one at each end: ` a dog , running `."""
    apart = _PUNCTUATION.sub(r" \1 ", text)
    return f" {_SPACE.sub(' ', apart).strip()} "
