"""Which pictures to compare in full: those whose hashes are equal or near.

A **node** is one distinct (hash, colour grid); however many rows show it, it is compared once. Nodes with one hash form
a **bucket**. Buckets of up to `BUCKET_NODES` are compared in full. A larger one (blank pictures, placeholders) is first
covered by leaders: each node joins the first leader it matches or becomes one; then only its leaders are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.colour import GRID_BYTES, Grids, same_picture
from curate.dedupe.hamming import Hashes, Indices
from curate.dedupe.settings import DedupeSettings

BUCKET_NODES = 64
_CHUNK_PAIRS = 16_384


@dataclass(frozen=True)
class Nodes:
    """Distinct (hash, grid) values, sorted by hash; `of` gives the node of each picture."""

    hashes: Hashes
    grids: Grids
    of: Indices


@dataclass(frozen=True)
class Edges:
    """Pairs of nodes that show the same picture."""

    first: Indices
    second: Indices


def distinct_nodes(hashes: Hashes, grids: Grids) -> Nodes:
    """Collapses pictures with equal hash and equal grid into one node each."""
    words = np.ascontiguousarray(grids).view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    order = np.lexsort(((words * odd).sum(axis=1, dtype=np.uint64), hashes))
    changes = (hashes[order][1:] != hashes[order][:-1]) | (words[order][1:] != words[order][:-1]).any(axis=1)
    starts = np.concatenate([[True], changes])[: len(order)]
    of = np.empty(len(order), np.int64)
    of[order] = np.cumsum(starts) - 1
    first = order[starts]
    return Nodes(hashes[first], grids[first], of)


def compared_nodes(nodes: Nodes, settings: DedupeSettings) -> tuple[Indices, Edges]:
    """Verified edges between nodes of equal hash; and the nodes that are still to be compared with those of near hashes."""
    starts, sizes = (counted.astype(np.int64) for counted in np.unique(nodes.hashes, return_index=True, return_counts=True)[1:])
    found = list(_giant_buckets(nodes, starts, sizes, settings))
    members, starts, sizes = _compared(len(nodes.hashes), starts, sizes, found)
    same = np.flatnonzero(sizes > 1)
    for one, other in products(starts, sizes, starts, sizes, same, same):
        once = members[one] < members[other]
        found.append(_verified(nodes, members[one[once]], members[other[once]], settings))
    none = np.zeros(0, np.int64)
    return members, Edges(*(np.concatenate([none, *(edge[side] for edge in found)]) for side in (0, 1)))


Edge = tuple[Indices, Indices]


def _verified(nodes: Nodes, one: Indices, other: Indices, settings: DedupeSettings) -> Edge:
    same = same_picture(nodes.grids[one], nodes.grids[other], settings)
    return one[same], other[same]


def _giant_buckets(nodes: Nodes, starts: Indices, sizes: Indices, settings: DedupeSettings) -> Iterator[Edge]:
    """For each bucket too large to compare in full: the edges from each leader to its followers."""
    for bucket in np.flatnonzero(sizes > BUCKET_NODES):
        waiting = np.arange(starts[bucket], starts[bucket] + sizes[bucket])
        while waiting.size:
            leader, waiting = waiting[0], waiting[1:]
            follows = _follows(nodes.grids[leader], nodes.grids[waiting], settings)
            followers, waiting = waiting[follows], waiting[~follows]
            yield np.full(len(followers), leader), followers


def _follows(leader: Grids, others: Grids, settings: DedupeSettings) -> NDArray[np.bool_]:
    chunks = [others[at : at + _CHUNK_PAIRS] for at in range(0, len(others), _CHUNK_PAIRS)]
    same = [same_picture(np.broadcast_to(leader, (len(chunk), GRID_BYTES)), chunk, settings) for chunk in chunks]
    return np.concatenate([np.zeros(0, np.bool_), *same])


def _compared(count: int, starts: Indices, sizes: Indices, found: list[Edge]) -> tuple[Indices, Indices, Indices]:
    """The nodes that are still compared (all but followers), with each bucket's first place among them and its size."""
    stays = np.ones(count, np.bool_)
    for _, followers in found:
        stays[followers] = False
    places = np.concatenate([[0], np.cumsum(stays)])
    return np.flatnonzero(stays), places[starts], places[starts + sizes] - places[starts]


def products(starts: Indices, sizes: Indices, other_starts: Indices, other_sizes: Indices, left: Indices, right: Indices) -> Iterator[Edge]:
    """Every member of bucket `left[i]` with every one of `right[i]`, in chunks; a bucket is a start and a size, on each side its own."""
    wide = other_sizes[right]
    totals = np.cumsum(sizes[left] * wide)
    for low in range(0, int(totals[-1]) if len(totals) else 0, _CHUNK_PAIRS):
        place = np.arange(low, min(low + _CHUNK_PAIRS, int(totals[-1])))
        pair = np.searchsorted(totals, place, side="right")
        inside = place - (totals[pair] - sizes[left[pair]] * wide[pair])
        yield starts[left[pair]] + inside // wide[pair], other_starts[right[pair]] + inside % wide[pair]
