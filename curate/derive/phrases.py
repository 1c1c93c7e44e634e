"""How often a caption, and the phrases in it, stand in the whole pool: rounds of a shuffle over all captions.

A **phrase** is a run of words of a caption's normal form (`curate.dedupe.shingles`; a character of a script without spaces is a word)
that many distinct captions share, such as "stock photo" or "on a white background". Equal captions count once, so that one
caption at a thousand images makes no phrase. Phrases of one length are counted at a time, and where none is common no longer one is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from curate.dedupe import exchanges as ex
from curate.dedupe.exchanges import Indices
from curate.dedupe.grouping import Equal
from curate.dedupe.shingles import Hashes, folded
from curate.dedupe.tables import Inputs, ReadCaptions, chunks
from curate.derive.measure import scores
from curate.settings import Settings
from curate.shuffle import Gathered, Lines, Out, Shuffle, mixed
from curate.stage import PartTask
from curate.store import Pool

_SPACELESS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Tibetan}])"
_SLICE_LINES = 1 << 16  # captions whose words are in memory together
_LENGTH_BITS = 40  # a phrase's length stands above so many bits for its captions, so that the largest number is the longest phrase

GRAMS = Lines(pa.schema([("key", pa.uint64()), ("place", pa.int64()), ("at", pa.int32()), ("first", pa.bool_())]), "key")
"""Every run of words of one length: the caption it is in, its place there, and whether it does not stand there before."""
COMMON = Lines(pa.schema([("place", pa.int64()), ("at", pa.int32()), ("words", pa.int32()), ("captions", pa.int64())]), "place")
"""Runs of words that are phrases, with the number of captions that have them."""
_TOLD = (("copies", pa.int64()), ("words", pa.int32()), ("captions", pa.int64()), ("share", pa.float64()))
ROWS = Lines(pa.schema([("chunk", pa.int64()), ("place", pa.int64()), *_TOLD]), "chunk", placed=True)
"""What every row is told of its caption; no copies: nothing is known of it."""


class Phrases(Settings):
    """Phrases are runs of `shortest` to `longest` words that `captions` or more distinct captions of the pool share."""

    captions: int = Field(default=100, ge=2)
    shortest: int = Field(default=2, ge=1, le=64)
    longest: int = Field(default=6, ge=1, le=64)

    @model_validator(mode="after")
    def _in_order(self) -> Phrases:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) is above longest ({self.longest})")
        return self

    @property
    def adds(self) -> pa.Schema:
        """Columns, in the order of `_TOLD`."""
        return scores(
            ("caption_copies", pa.int64(), "rows of the pool whose caption has the same normal form, this one included"),
            ("phrase_words", pa.int32(), "words of the longest phrase in the caption that many captions of the pool share; 0 for none"),
            ("phrase_captions", pa.int64(), "distinct captions that have that phrase; of phrases of one length the most frequent counts"),
            ("phrase_share", pa.float64(), "share of the caption's words that stand in shared phrases"),
        )


def phrase_rounds(shuffle: Shuffle, inputs: Inputs, settings: Phrases) -> None:
    """Leaves `parts` and `rows`."""
    tasks, borders = chunks(inputs, str(shuffle.pool.path), shuffle.buckets)
    shuffle.run(ReadCaptions(images=False), tasks)
    shuffle.run(Equal(borders, "captions", ex.TEXTS))
    shuffle.drop("captions", "pairs")
    shuffle.put("common", COMMON, COMMON.schema.empty_table())
    for length in range(settings.shortest, settings.longest + 1):
        shuffle.run(Split(length))
        found = shuffle.run(Count(length, settings.captions))
        shuffle.drop("grams")
        if not found.counters.get("phrases"):
            break
    shuffle.run(Tell(borders))
    shuffle.drop("of", "leaders", "shown", "common")


@dataclass(frozen=True)
class Split:
    """Sends every run of `length` words to where equal ones come together."""

    length: int

    name = "phrases by words"
    reads: Sequence[str] = ("shown",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"grams": GRAMS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of distinct captions."""
        for place, texts in _slices(given["shown"]):
            key, text, at = _runs(split(texts), self.length)
            order = np.lexsort((at, key, text))
            again = (np.diff(text[order], prepend=-1) == 0) & (np.diff(key[order], prepend=np.uint64(0)) == 0)
            first = np.ones(len(order), np.bool_)
            first[order[again]] = False
            out.emit("grams", {"key": key, "place": place[text], "at": at.astype(np.int32), "first": first})


@dataclass(frozen=True)
class Count:
    """Tells captions which of their runs of words are phrases; a run that all captions have is met chunk by chunk."""

    length: int
    captions: int

    name = "common phrases"
    reads: Sequence[str] = ("grams",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"common": COMMON})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of runs."""
        known, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for chunk in given["grams"].chunks():
            both = np.concatenate([known, _keys(chunk)])
            weights = np.concatenate([counts, ex.array(chunk, "first").astype(np.int64)])
            known, of = np.unique(both, return_inverse=True)
            counts = np.bincount(of, weights, len(known)).astype(np.int64)
        known, counts = known[counts >= self.captions], counts[counts >= self.captions]
        out.count("phrases", len(known))
        for chunk in given["grams"].chunks() if len(known) else ():
            key = _keys(chunk)
            nearest = np.minimum(np.searchsorted(known, key), len(known) - 1)
            common = np.flatnonzero(known[nearest] == key)
            told = chunk.take(pa.array(common))
            lengths = np.full(len(common), self.length, np.int32)
            out.emit(
                "common", {**{name: told.column(name) for name in ("place", "at")}, "words": lengths, "captions": counts[nearest[common]]}
            )


@dataclass(frozen=True)
class Tell:
    """Judges each distinct caption by the phrases in it, and tells every row that has it."""

    borders: tuple[int, ...]

    name = "phrases to rows"
    reads: Sequence[str] = ("of", "leaders", "shown", "common")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"rows": ROWS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of distinct captions."""
        leaders = given["leaders"].table("place")
        place, copies = ex.integers(leaders, "place"), ex.integers(leaders, "count")
        sizes = np.zeros(len(place), np.int64)
        for own, texts in _slices(given["shown"]):
            sizes[np.searchsorted(place, own)] = pc.list_value_length(split(texts)).to_numpy()
        longest, share = _judged(place, sizes, given["common"])
        copies = np.where(sizes > 0, copies, 0)
        words, captions = longest >> _LENGTH_BITS, longest & ((1 << _LENGTH_BITS) - 1)
        for chunk in given["of"].chunks():
            at, row = np.searchsorted(place, ex.integers(chunk, "leader")), ex.integers(chunk, "place")
            told = {"copies": copies[at], "words": words[at].astype(np.int32), "captions": captions[at], "share": share[at]}
            out.emit("rows", {"chunk": ex.chunk_of(self.borders, row), "place": row, **told})


def _judged(place: Indices, sizes: Indices, common: Gathered) -> tuple[Indices, NDArray[np.float64]]:
    """For each caption its longest phrase as one number (length, then captions), and the share of its words that are in phrases."""
    starts = np.cumsum(sizes) - sizes
    covered, longest = np.zeros(int(sizes.sum()), np.bool_), np.zeros(len(place), np.int64)
    for chunk in common.chunks():
        caption, words = np.searchsorted(place, ex.integers(chunk, "place")), ex.integers(chunk, "words")
        np.maximum.at(longest, caption, (words << _LENGTH_BITS) | ex.integers(chunk, "captions"))
        begin = starts[caption] + ex.integers(chunk, "at")
        for offset in range(int(words.max(initial=0))):
            covered[begin[words > offset] + offset] = True
    inside = np.bincount(np.repeat(np.arange(len(place)), sizes)[covered], minlength=len(place))
    return longest, inside / np.maximum(sizes, 1)


@dataclass(frozen=True)
class Write:
    """Writes the table's files for a chunk of parts; the driver commits them."""

    table: str
    schema: pa.Schema
    basis: str

    name = "tables"
    reads: Sequence[str] = ("parts", "rows")
    emits: Mapping[str, Lines] = field(default_factory=dict)

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One chunk of parts with all its rows."""
        pool, rows = Pool.open(task.pool), given["rows"].table("place")
        place = ex.integers(rows, "place")
        for part, count in zip(*(ex.integers(given["parts"].table("part"), name).tolist() for name in ("part", "rows")), strict=True):
            low, high = np.searchsorted(place, [part << 32, (part + 1) << 32])
            own = rows.slice(low, high - low)
            out.commit(pool.write_part(self.table, part, self._rows(own, count), self.basis, self.schema))
            out.count("rows", pc.sum(pc.greater(own.column("copies"), 0)).as_py() or 0)

    def _rows(self, told: pa.Table, count: int) -> pa.Table:
        """One line for each row of the part; null where nothing is known."""
        at = np.full(count, -1)
        at[ex.integers(told, "place") & 0xFFFFFFFF] = np.arange(len(told))
        known = pc.greater(told.column("copies"), 0)
        phrased = pc.and_(known, pc.greater(told.column("words"), 0))
        spread = pa.array(at, mask=at < 0)
        columns = {"row": pa.array(range(count), pa.int32()), "reason": pa.nulls(count, pa.string())}
        for (name, kind), column in zip(_TOLD, self.schema.names[3:-1], strict=True):
            values = pc.if_else(phrased if name == "captions" else known, told.column(name), pa.scalar(None, kind))
            columns[column] = values.combine_chunks().take(spread)
        return pa.table(columns)


# -- words


def split(texts: pa.Array) -> pa.Array:
    """The words of normal forms that are not empty; a character of a script without spaces is one."""
    apart = pc.replace_substring_regex(texts, _SPACELESS, r" \1 ")
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(apart))


def _slices(shown: Gathered) -> Iterator[tuple[Indices, pa.Array]]:
    """Distinct captions with their places, some at a time."""
    for chunk in shown.chunks():
        for low in range(0, len(chunk), _SLICE_LINES):
            some = chunk.slice(low, _SLICE_LINES)
            yield ex.integers(some, "place"), some.column("text").combine_chunks()


def _runs(words: pa.Array, length: int) -> tuple[Hashes, Indices, Indices]:
    """Hash, number of the text and place in it of every run of `length` words. Two runs are one but for a chance of 2⁻⁶⁴."""
    sizes = np.asarray(pc.list_value_length(words).to_numpy(), np.int64)
    counts = np.maximum(sizes - length + 1, 0)
    text = np.repeat(np.arange(len(sizes)), counts)
    at = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = (np.cumsum(sizes) - sizes)[text] + at
    hashes = _hashed(words.flatten())
    return mixed(folded([hashes[begin + offset] for offset in range(length)])), text, at


def _hashed(words: pa.Array) -> Hashes:
    """64 bits of each word."""
    coded = words.dictionary_encode()
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in coded.dictionary.to_pylist())
    return np.asarray(np.frombuffer(digests, np.uint64)[coded.indices.to_numpy()])


def _keys(chunk: pa.Table) -> Hashes:
    return np.asarray(chunk.column("key").to_numpy(), np.uint64)
