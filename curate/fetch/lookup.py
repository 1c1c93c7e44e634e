"""Whether a key is in a large set: sorted arrays for exact keys, word buckets for hashes that may differ in some bits.

Both are a few numpy arrays, so that they can lie in files that all processes of a machine map: about 24 bytes for an
exact entry, 104 for a PDQ hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from curate.fetch.entries import KEY_BYTES, Entries
from curate.media.pdq import HASH_BYTES, MATCH_BITS

_WORDS = HASH_BYTES // 2
_FLIPS = np.array([0, *(1 << bit for bit in range(16))], np.int64)


@dataclass(frozen=True)
class ExactSet:
    """Entries sorted by their first 8 bytes: `head`, `tail` (the next 8; the rest is not looked at) and `line`."""

    head: npt.NDArray[np.uint64]
    tail: npt.NDArray[np.uint64]
    line: npt.NDArray[np.int64]

    @classmethod
    def of(cls, entries: Entries) -> Self:
        """Sorts entries whose keys have at least 16 bytes."""
        halves = np.ascontiguousarray(entries.keys[:, :KEY_BYTES]).view(">u8").astype(np.uint64)
        order = np.argsort(halves[:, 0], kind="stable")
        return cls(halves[order, 0], halves[order, 1], entries.lines[order])

    def find(self, key: bytes) -> int | None:
        """Line of the first entry that starts with the key's first 16 bytes."""
        head, tail = np.frombuffer(key[:KEY_BYTES], ">u8").astype(np.uint64)
        at = int(np.searchsorted(self.head, head))
        while at < len(self.head) and self.head[at] == head:
            if self.tail[at] == tail:
                return int(self.line[at])
            at += 1
        return None


@dataclass(frozen=True)
class NearSet:
    """Hashes of 256 bits, found within 31 bits: of their 16 words, one must then be off by at most one bit.

    `hash` (n, 4) words of 64 bits in any order; for each of the 16 words, `order` (16, n) lists the hashes by that
    word's value and `start` (16, 65537) says where each value begins. After Norouzi, Punjani and Fleet, "Fast search
    in Hamming space with multi-index hashing" (2012).
    """

    hash: npt.NDArray[np.uint64]
    order: npt.NDArray[np.int32]
    start: npt.NDArray[np.int32]
    line: npt.NDArray[np.int64]

    @classmethod
    def of(cls, entries: Entries) -> Self:
        """Sorts entries whose keys have 32 bytes."""
        words = _words(entries.keys)
        order = np.stack([np.argsort(words[:, at], kind="stable") for at in range(_WORDS)]).astype(np.int32)
        counts = np.stack([np.bincount(words[:, at], minlength=1 << 16) for at in range(_WORDS)])
        start = np.concatenate([np.zeros((_WORDS, 1), np.int64), np.cumsum(counts, axis=1)], axis=1).astype(np.int32)
        return cls(np.ascontiguousarray(entries.keys).view(np.uint64), order, start, entries.lines)

    def find(self, key: bytes) -> int | None:
        """Line of the nearest entry at 31 bits or fewer."""
        wanted = np.frombuffer(key, np.uint8)
        near = self._candidates(_words(wanted[None, :])[0])
        if not near.size:
            return None
        distances = np.bitwise_count(self.hash[near] ^ wanted.view(np.uint64)).sum(axis=1)
        best = int(np.argmin(distances))
        return int(self.line[near[best]]) if distances[best] <= MATCH_BITS else None

    def _candidates(self, words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
        """Hashes that share a word, but for one bit, with the 16 given ones; some several times."""
        values = words[:, None].astype(np.int64) ^ _FLIPS
        rows = np.broadcast_to(np.arange(_WORDS)[:, None], values.shape)
        first, end = self.start[rows, values].ravel(), self.start[rows, values + 1].ravel()
        sizes = end - first
        places = np.repeat(first - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        return np.asarray(self.order[np.repeat(rows.ravel(), sizes), places])


def _words(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(keys).view(">u2").astype(np.uint16)
