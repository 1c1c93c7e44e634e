"""Runs of words that a caption shares with an evaluation set's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedupe.shingles import normalised

Hashes = NDArray[np.uint64]


def runs(captions: Sequence[str | None], words: int) -> Iterator[tuple[int, str]]:
    """(place of the caption, run) for every run of so many words of the captions' normal form, in order."""
    for place, text in enumerate(normalised(pa.array(captions, pa.string())).to_pylist()):
        found = text.split()
        for start in range(len(found) - words + 1):
            yield place, " ".join(found[start : start + words])


def hash_of(run: str) -> int:
    """64 bits of BLAKE2b: two runs of a billion share one with a chance of 1 in 37."""
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big")
