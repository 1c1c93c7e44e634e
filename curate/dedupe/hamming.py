"""All pairs of 64-bit hashes within a Hamming radius, without looking at all pairs.

Method: the 64 bits are cut into `radius + agreeing` blocks. At most `radius` blocks can hold a differing bit, so every
pair within the radius agrees on at least `agreeing` blocks (Manku, Jain, Das Sarma: Detecting near-duplicates for web
crawling, WWW 2007). For each choice of `agreeing` blocks the hashes are sorted by those bits, and only hashes with an
equal key are compared: the answer is complete, and a pair is reported by the first choice that finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
class Pairs:
    """Index pairs with `first < second`, and the bits in which they differ; sorted by (first, second)."""

    first: Indices
    second: Indices
    distance: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first)


def near_pairs(hashes: Hashes, radius: int) -> Pairs:
    """Every pair of *distinct* hashes within `radius` bits of each other, once.

    `hashes` must hold no value twice: collapse equal hashes to one before, they would be n² pairs.
    Memory: about 40 bytes a hash and 24 bytes a found pair.
    """
    if radius == 0 or len(hashes) < 2:
        return _joined([])
    agreeing = _agreeing_blocks(hashes, radius)
    masks = _block_masks(radius + agreeing)
    found = [pairs for chosen in combinations(range(len(masks)), agreeing) for pairs in _pairs_agreeing_on(hashes, masks, chosen, radius)]
    return _joined(found)


def _joined(found: list[Pairs]) -> Pairs:
    none = np.zeros(0, np.int64)
    first = np.concatenate([none, *(pairs.first for pairs in found)])
    second = np.concatenate([none, *(pairs.second for pairs in found)])
    distance = np.concatenate([np.zeros(0, np.int32), *(pairs.distance for pairs in found)])
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], distance[order])


def _block_masks(blocks: int) -> list[np.uint64]:
    """One mask per block; blocks are contiguous and differ in width by at most one bit."""
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    return [np.uint64(((1 << (high - low)) - 1) << low) for low, high in pairwise(edges)]


def _agreeing_blocks(hashes: Hashes, radius: int) -> int:
    """How many blocks must agree: more of them cost more sorts and leave fewer pairs to compare.

    Judged by the pairs that share a key in one choice of blocks of these very hashes, since real ones are not uniform.
    """
    costs: dict[int, float] = {}
    for agreeing in range(1, MAX_AGREEING + 1):
        choices = math.comb(radius + agreeing, agreeing)
        if choices * _SORT_COST * len(hashes) > min(costs.values(), default=math.inf):
            break
        key = hashes & _union(_block_masks(radius + agreeing)[:agreeing])
        sizes = np.unique(key, return_counts=True)[1].astype(np.float64)
        costs[agreeing] = choices * (_SORT_COST * len(hashes) + float((sizes * (sizes - 1)).sum()) / 2)
    return min(costs, key=costs.__getitem__)


def _union(masks: list[np.uint64]) -> np.uint64:
    return np.uint64(sum(int(mask) for mask in masks))


def _pairs_agreeing_on(hashes: Hashes, masks: list[np.uint64], chosen: tuple[int, ...], radius: int) -> Iterator[Pairs]:
    """Pairs within the radius that agree on the chosen blocks, and on no choice that comes earlier."""
    key = hashes & _union([masks[block] for block in chosen])
    order = np.argsort(key, kind="stable")
    key, values = key[order], hashes[order]
    earlier = [masks[block] for block in range(chosen[-1]) if block not in chosen]
    for left, right in _equal_key_pairs(key):
        difference = values[left] ^ values[right]
        distance = np.bitwise_count(difference)
        near = np.flatnonzero(distance <= radius)
        for mask in earlier:
            near = near[(difference[near] & mask) != 0]
        if near.size:
            one, other = order[left[near]], order[right[near]]
            yield Pairs(np.minimum(one, other), np.maximum(one, other), distance[near].astype(np.int32))


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
