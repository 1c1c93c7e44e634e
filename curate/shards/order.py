"""Orders that depend on nothing but names and a seed: the same on every machine and with every library version.

The mixing function is splitmix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from curate.errors import AccountingError

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

SAMPLE_ID = re.compile(r"[0-9a-f]{32}")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(words: Words) -> Words:
    """A bijection of 64-bit words that leaves no pattern."""
    with np.errstate(over="ignore"):
        z = words + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seeded(*seeds: int) -> np.uint64:
    """One word from several numbers, each of which counts, as does their order."""
    word = np.zeros(1, np.uint64)
    for seed in seeds:
        word = mixed(word ^ np.array([seed & (2**64 - 1)], np.uint64))
    return np.uint64(word[0])


def permutation(length: int, *seeds: int) -> Positions:
    """The numbers below `length` in an order that the seeds choose."""
    return np.argsort(mixed(np.arange(length, dtype=np.uint64) ^ seeded(*seeds)), kind="stable").astype(np.int64)


def words_of(sample_ids: list[str]) -> Words:
    """Each id as two 64-bit words, shape (n, 2). Raises AccountingError for one that is not 32 hex digits."""
    for name in sample_ids:
        if not SAMPLE_ID.fullmatch(name):
            raise AccountingError(f"sample_id {name!r} is not 32 hex digits")
    return np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=">u8").astype(np.uint64).reshape(-1, 2)


def ranks(words: Words, seed: int) -> Positions:
    """Each sample's place in the seeded order, shape (n,); which order they came in does not matter."""
    order = np.lexsort((words[:, 1], words[:, 0], mixed(words[:, 0] ^ seeded(seed))))
    places = np.empty(len(words), np.int64)
    places[order] = np.arange(len(words))
    return places
