"""All pairs of 64-bit hashes within a Hamming radius, without looking at all pairs.

Method: the 64 bits are cut into `radius + agreeing` blocks. At most `radius` blocks can hold a differing bit, so every
pair within the radius agrees on at least `agreeing` blocks (Manku, Jain, Das Sarma: Detecting near-duplicates for web
crawling, WWW 2007). For each choice of `agreeing` blocks only hashes with equal bits in those blocks are compared: the
answer is complete, and a pair is reported by the first choice that finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

BITS = 64
MAX_AGREEING = 4
_SORT_COST = 8.0  # sorting one hash costs about as much as comparing this many pairs


@dataclass(frozen=True)
class Choice:
    """One choice of agreeing blocks: their bits, and those of blocks which, when they agree too, make an earlier choice."""

    mask: int
    earlier: tuple[int, ...]


def choices(radius: int, agreeing: int) -> list[Choice]:
    """All choices of `agreeing` blocks among `radius + agreeing`, in order."""
    masks = _block_masks(radius + agreeing)
    return [
        Choice(sum(masks[block] for block in chosen), tuple(masks[block] for block in range(chosen[-1]) if block not in chosen))
        for chosen in combinations(range(len(masks)), agreeing)
    ]


def _block_masks(blocks: int) -> list[int]:
    """One mask per block; blocks are contiguous and differ in width by at most one bit."""
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    return [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]


def collisions(hashes: Hashes, radius: int) -> dict[int, float]:
    """For each number of agreeing blocks: how many pairs of these hashes have equal bits in one choice of that many."""
    found = {}
    for agreeing in range(1, MAX_AGREEING + 1) if radius else ():
        key = hashes & np.uint64(choices(radius, agreeing)[0].mask)
        sizes = np.unique(key, return_counts=True)[1].astype(np.float64)
        found[agreeing] = float((sizes * (sizes - 1)).sum()) / 2
    return found


def agreeing_blocks(hashes: float, collisions: Mapping[int, float], radius: int) -> int:
    """How many blocks must agree: more of them cost more sorts and leave fewer pairs to compare.

    Judged by the collisions of the very hashes that are compared, since real ones are not uniform.
    """
    costs = {agreeing: math.comb(radius + agreeing, agreeing) * (_SORT_COST * hashes + pairs) for agreeing, pairs in collisions.items()}
    return min(costs, key=costs.__getitem__, default=1)


def near_pairs(hashes: Hashes, choice: Choice, radius: int) -> Iterator[tuple[Hashes, Hashes]]:
    """Pairs of these *distinct* hashes within the radius that agree on the choice's blocks, and on no choice that comes earlier."""
    key = hashes & np.uint64(choice.mask)
    order = np.argsort(key, kind="stable")
    key, values = key[order], hashes[order]
    for left, right in _equal_key_pairs(key):
        difference = values[left] ^ values[right]
        near = np.flatnonzero(np.bitwise_count(difference) <= radius)
        for mask in choice.earlier:
            near = near[(difference[near] & np.uint64(mask)) != 0]
        if near.size:
            yield values[left[near]], values[right[near]]


def _equal_key_pairs(key: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """All position pairs with equal sorted keys: neighbours first, then those two apart, and so on.

    Each round is one vector operation over the positions whose run of equal keys is still long enough.
    """
    left = np.flatnonzero(key[1:] == key[:-1])
    apart = 1
    while left.size:
        yield left, left + apart
        apart += 1
        left = left[left + apart < len(key)]
        left = left[key[left] == key[left + apart]]
