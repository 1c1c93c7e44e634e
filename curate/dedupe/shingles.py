"""Captions as sets of shingles: one normal form, all runs of n characters, and how much two sets share.

The normal form of a caption: Unicode NFKC, lower case, every run of what is neither letter, mark nor digit one space, none
at the ends. A shingle is a run of n characters (code points) of it, spaces included; a text shorter than that is one
shingle. Characters rather than words, since many scripts put no spaces between words and captions are short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from curate.shuffle import mixed

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_BLOCK_TEXTS = 4096  # so many texts are named by 12 bits, which leaves 52 for a shingle
_BLOCK_CHARACTERS = 1 << 16  # what is computed of a block stays in a processor's cache
_HASH_BITS = 52
_PAIRS_AT_ONCE = 1 << 14
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio


def normalised(captions: pa.Array) -> pa.Array:
    """The normal form of each caption; null, or without a letter or a digit: empty."""
    text = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(captions, ""), "NFKC"))
    return pc.utf8_trim(pc.replace_substring_regex(text, r"[^\p{L}\p{M}\p{N}]+", " "), " ")


@dataclass(frozen=True)
class Shingles:
    """Hashes of the shingles of consecutive texts, as often as they stand; those of text i begin at `starts[i]`."""

    hashes: Hashes
    starts: Indices

    def lengths(self) -> Indices:
        """How many each text has; at least one."""
        return np.diff(self.starts, append=len(self.hashes))


def shingles(texts: pa.Array, characters: int) -> Iterator[Shingles]:
    """The shingles of texts that are not empty, in blocks of neighbouring texts; a block holds up to 65,536 characters, or one text."""
    lengths = np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False), np.int64)
    for low, high in _blocks(lengths):
        points = np.frombuffer("".join(texts[low:high].to_pylist()).encode("utf-32-le"), np.uint32).astype(np.uint64)
        yield _windows(points, lengths[low:high], characters)


def _blocks(lengths: Indices) -> Iterator[tuple[int, int]]:
    ends, low = np.cumsum(lengths), 0
    while low < len(lengths):
        before = ends[low] - lengths[low]
        fit = int(np.searchsorted(ends, before + _BLOCK_CHARACTERS, side="right"))
        high = min(max(fit, low + 1), low + _BLOCK_TEXTS, len(lengths))
        yield low, high
        low = high


def _windows(points: Hashes, lengths: Indices, characters: int) -> Shingles:
    """A hash of every window that lies inside one text; of a text shorter than the window, as if NULs followed it."""
    counts = np.maximum(lengths - characters + 1, 1)
    starts, begins = np.cumsum(counts) - counts, np.cumsum(lengths) - lengths
    padded = np.concatenate([points, np.zeros(characters, np.uint64)])
    everywhere = folded([padded[offset : offset + len(points)] for offset in range(characters)])
    hashes = everywhere[np.arange(int(counts.sum())) + np.repeat(begins - starts, counts)]
    short = np.flatnonzero(lengths < characters)
    hashes[starts[short]] = folded(
        [np.where(offset < lengths[short], padded[begins[short] + offset], np.uint64(0)) for offset in range(characters)]
    )
    return Shingles(mixed(hashes), starts)


def folded(letters: Sequence[Hashes]) -> Hashes:
    """One hash of the letters (or words) that stand at each place of these arrays; to be `mixed`."""
    hashes = np.zeros(len(letters[0]), np.uint64)
    for letter in letters:
        hashes = (hashes + letter) * _ODD
        hashes ^= hashes >> np.uint64(29)
    return hashes


@dataclass(frozen=True)
class Sets:
    """Distinct shingles of texts, ascending in each; those of text i are `values[borders[i] : borders[i + 1]]`."""

    values: Indices
    borders: Indices

    def sizes(self) -> Indices:
        """How many distinct shingles each text has."""
        return np.diff(self.borders)

    def rows(self) -> csr_array:
        """As a sparse matrix, one row for each text, whose columns are the shingles."""
        found = csr_array((np.ones(len(self.values), np.int8), self.values, self.borders), shape=(len(self.borders) - 1, 1 << _HASH_BITS))
        found.has_canonical_format = True  # ascending and distinct, so that scipy need not look
        return found


def shingle_sets(texts: pa.Array, characters: int) -> Sets:
    """The set of each text. A shingle is named by 52 bits of its hash: two differ in name but for a chance of 2⁻⁵²."""
    values, sizes = [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    for block in shingles(texts, characters):
        text = np.repeat(np.arange(len(block.starts), dtype=np.uint64), block.lengths())
        named = np.sort((text << np.uint64(_HASH_BITS)) | (block.hashes >> np.uint64(64 - _HASH_BITS)))
        named = named[np.concatenate([[True], named[1:] != named[:-1]])]
        sizes.append(np.bincount((named >> np.uint64(_HASH_BITS)).astype(np.int64), minlength=len(block.starts)))
        values.append((named & np.uint64((1 << _HASH_BITS) - 1)).astype(np.int64))
    return Sets(np.concatenate(values), np.cumsum(np.concatenate(sizes)))


def jaccard(one: Sets, other: Sets, left: Indices, right: Indices) -> NDArray[np.float64]:
    """|A ∩ B| / |A ∪ B| of text `left[i]` of `one` and text `right[i]` of `other`."""
    found = [np.zeros(0)]
    rows, other_rows = one.rows(), other.rows()
    for low in range(0, len(left), _PAIRS_AT_ONCE):
        mine, theirs = rows[left[low : low + _PAIRS_AT_ONCE]], other_rows[right[low : low + _PAIRS_AT_ONCE]]
        shared = np.diff(mine.multiply(theirs).indptr)
        found.append(shared / (np.diff(mine.indptr) + np.diff(theirs.indptr) - shared))
    return np.concatenate(found)
