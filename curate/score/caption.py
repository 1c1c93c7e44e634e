"""Numbers about the caption: length, wording and language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pydantic import Field

from curate import schema as schemas
from curate.media.text import UNKNOWN, clean, language, statistics
from curate.media.wording import wording
from curate.score.scorer import ROW_COLUMNS, Batch, Opened, Scored
from curate.settings import Settings
from curate.stage import identity_of

_COLUMNS = (
    "caption_characters", "caption_words", "caption_repeated_words", "caption_top_bigram", "caption_duplicate_5grams",
    "caption_word_length", "caption_non_words", "caption_file_name", "caption_url", "caption_language", "caption_language_score",
)  # fmt: skip


class CaptionScorer(Settings):
    """Characters, words, what these are (see `curate.media.wording`), and the likeliest language with the probability that it is right.

    The probability is calibrated by the length of the text (see `curate.media.text.calibrated`). Below `unknown_below` the language
    is called unknown; 0 takes every guess, as the published filters do that ask fastText.
    """

    unknown_below: float = Field(default=0.5, ge=0, le=1)

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 3

    @property
    def needs(self) -> pa.Schema:
        """The caption."""
        return pa.schema([ROW_COLUMNS.field("caption")])

    @property
    def adds(self) -> pa.Schema:
        """The `caption_` columns of schemas/scores.sql."""
        return pa.schema([schemas.table("scores").field(name) for name in _COLUMNS])

    def identity(self) -> str:
        """See `Scorer`."""
        return identity_of("CaptionScorer", self.version, self.model_dump(mode="json"))

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """The language model loads itself at the first caption."""
        yield Opened(None, self._score)

    def _score(self, batch: Batch) -> Scored:
        lines = [_line(caption or "", self.unknown_below) for caption in batch.rows.column("caption").to_pylist()]
        return Scored(pa.RecordBatch.from_pylist(lines, schema=self.adds))


def _line(caption: str, unknown_below: float) -> dict[str, object]:
    text = clean(caption)
    size, made_of = statistics(text), wording(text)
    code, probability = language(text)
    told = (code, probability) if code is None or probability >= unknown_below else (UNKNOWN, probability)
    values = (size.characters, size.words, *vars(made_of).values(), *(told if code is not None else (None, None)))
    return dict(zip(_COLUMNS, values, strict=True))
