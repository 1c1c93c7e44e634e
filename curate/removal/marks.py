"""Marks: how bytes that must be gone are found again without being kept.

A mark of a blob (a stored image, an embedding, a thumbnail) is a slice of 48 of its bytes, remembered as 24 bits of a hash
of its first eight and as 128 bits of its sha256: nothing of the content can be read back from it. A search hashes the eight
bytes at every position of a file and looks closer only where the 24 bits are some mark's. Slices are taken where blobs
differ: behind the last header of a JPEG, in the second half of other blobs, and only where many byte values occur.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLICE_BYTES = 48
MARKS = 3
_WORD, _BITS = 8, 24
_DISTINCT = 20  # of 48 random bytes about 44 differ; flat areas and padding repeat a few
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - _BITS)
_SCAN_HEADER = b"\xff\xda"

Mark = str
"""6 hex digits of the first eight bytes' hash, then 32 of the slice's sha256."""


def marks_of(blob: bytes) -> list[Mark]:
    """Up to three marks of a blob; none for one that is too small or too monotonous to be recognised by a part of it."""
    first = blob.rfind(_SCAN_HEADER) + 14 if blob[:2] == b"\xff\xd8" else len(blob) // 2
    last = len(blob) - SLICE_BYTES - 2
    places = dict.fromkeys(np.linspace(first, last, 48).astype(int).tolist() if last > first else [])
    telling = [at for at in places if len(set(blob[at : at + SLICE_BYTES])) >= _DISTINCT]
    chosen = [telling[at] for at in np.unique(np.linspace(0, len(telling) - 1, MARKS).astype(int))] if telling else []
    return [_mark(blob[at : at + SLICE_BYTES]) for at in chosen]


def _mark(piece: bytes) -> Mark:
    return f"{int(_keys(np.frombuffer(piece[:_WORD], '<u8'))[0]):06x}{hashlib.sha256(piece).hexdigest()[:32]}"


def _keys(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return (words * _FACTOR) >> _SHIFT


@dataclass(frozen=True)
class Blob:
    """Something that must be gone: what it was, and how to know it again."""

    name: str  # for example `image of <sample_id>`
    marks: tuple[Mark, ...]


class Search:
    """Looks for blobs in bytes; a core goes through about 100 MB a second."""

    def __init__(self, blobs: Iterable[Blob]) -> None:
        self._blobs = [blob for blob in blobs if blob.marks]
        self._owners: dict[Mark, list[int]] = defaultdict(list)
        self._keys = np.zeros(1 << _BITS, np.bool_)
        self._first_bits = np.zeros(1 << 16, np.bool_)  # small enough for the fastest cache
        for number, blob in enumerate(self._blobs):
            for mark in blob.marks:
                self._owners[mark].append(number)
                self._keys[int(mark[:6], 16)] = True
                self._first_bits[int(mark[:4], 16)] = True

    def found(self, pieces: Iterable[bytes], least: int = 2) -> list[Blob]:
        """Blobs of which so many marks (or all, where they have fewer) occur in the pieces, which overlap where they are cut.

        Two pictures that are alike in their upper halves share bytes when one program wrote both: where such pictures may
        rightly lie, all marks must be there.
        """
        if not self._owners:
            return []
        seen: dict[int, set[Mark]] = defaultdict(set)
        for piece in pieces:
            for mark in self._marks_in(piece):
                for number in self._owners[mark]:
                    seen[number].add(mark)
        return [self._blobs[number] for number, marks in sorted(seen.items()) if len(marks) >= min(least, len(self._blobs[number].marks))]

    def _marks_in(self, piece: bytes) -> Iterator[Mark]:
        for at in self._candidates(piece):
            mark = _mark(piece[at : at + SLICE_BYTES])
            if mark in self._owners:
                yield mark

    def _candidates(self, piece: bytes) -> Iterator[int]:
        """Positions whose eight bytes hash like some mark's."""
        for shift in range(_WORD):
            count = (len(piece) - shift) // _WORD
            if count > 0:
                keys = _keys(np.frombuffer(piece, "<u8", count, shift))
                likely = np.flatnonzero(self._first_bits[keys >> np.uint64(_BITS - 16)])
                yield from (likely[self._keys[keys[likely]]] * _WORD + shift).tolist()
