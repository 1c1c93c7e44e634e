"""From hashes to groups: equal bytes, matching pictures, connected components, and the evidence for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.candidates import distinct_nodes, matching_nodes
from curate.dedupe.colour import Grids
from curate.dedupe.hamming import Hashes, Indices
from curate.dedupe.settings import DedupeSettings


@dataclass(frozen=True)
class Pictures:
    """What is compared, one entry per row with an image, in (part, row) order.

    `sample_id` (n, 2) and `sha256` (n, 4) are big-endian words; `hashes` and `grids` hold the rows of `hashed` only.
    """

    sample_id: NDArray[np.uint64]
    sha256: NDArray[np.uint64]
    hashed: Indices
    hashes: Hashes
    grids: Grids

    def __len__(self) -> int:
        return len(self.sample_id)


@dataclass(frozen=True)
class Evidence:
    """Pairs that were merged: indices of pictures with `first < second`, bits of difference, whether bytes are equal."""

    first: Indices
    second: Indices
    distance: NDArray[np.int32]
    exact: NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """For each picture the member with the smallest sample_id of its group, the group's size, and whether all bytes are equal."""

    representative: Indices
    size: NDArray[np.int32]
    exact: NDArray[np.bool_]
    evidence: Evidence


def group(pictures: Pictures, settings: DedupeSettings) -> Groups:
    """Groups of pictures that are connected by equal bytes or by verified perceptual matches."""
    rank = ranks(pictures.sample_id)
    exact = smallest_of(equal_rows(pictures.sha256), rank)
    members = np.arange(len(pictures))
    copies = members[exact != members]
    stars = Evidence(exact[copies], copies, np.zeros(len(copies), np.int32), np.ones(len(copies), np.bool_))
    matches = _perceptual(pictures, exact, rank, settings) if settings.perceptual else _no_evidence()
    evidence = _oriented(_together(stars, matches))
    component = _components(len(pictures), evidence)
    size = np.bincount(component, minlength=1)[component]
    representative = smallest_of(component, rank)
    mixed = np.zeros(len(pictures), np.bool_)
    mixed[representative[exact != exact[representative]]] = True
    return Groups(representative, size.astype(np.int32), ~mixed[representative], evidence)


def _perceptual(pictures: Pictures, exact: Indices, rank: Indices, settings: DedupeSettings) -> Evidence:
    """Verified matches between pictures of different bytes; equal (hash, grid) values count as distance 0."""
    first_of_bytes = exact[pictures.hashed] == pictures.hashed
    shown = pictures.hashed[first_of_bytes]
    nodes = distinct_nodes(pictures.hashes[first_of_bytes], pictures.grids[first_of_bytes])
    leader = shown[smallest_of(nodes.of, rank[shown])]
    follower = leader != shown
    edges = matching_nodes(nodes, settings)
    face = np.zeros(len(nodes.hashes), np.int64)
    face[nodes.of] = leader
    return Evidence(
        np.concatenate([leader[follower], face[edges.first]]),
        np.concatenate([shown[follower], face[edges.second]]),
        np.concatenate([np.zeros(int(follower.sum()), np.int32), edges.distance]),
        np.zeros(int(follower.sum()) + len(edges.first), np.bool_),
    )


def _no_evidence() -> Evidence:
    none = np.zeros(0, np.int64)
    return Evidence(none, none, np.zeros(0, np.int32), np.zeros(0, np.bool_))


def _together(one: Evidence, other: Evidence) -> Evidence:
    names = ("first", "second", "distance", "exact")
    return Evidence(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in names))


def _oriented(pairs: Evidence) -> Evidence:
    """The earlier row first, sorted."""
    first, second = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((second, first))
    return Evidence(first[order], second[order], pairs.distance[order], pairs.exact[order])


def _components(count: int, pairs: Evidence) -> Indices:
    from scipy.sparse import coo_array  # slow to load, and most commands on a pool group nothing
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs.first), np.bool_), (pairs.first, pairs.second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64) if count else np.zeros(0, np.int64)


def equal_rows(words: NDArray[np.uint64]) -> Indices:
    """Class number of each row of an (n, words) array: equal rows, equal number."""
    order = np.lexsort(words.T[::-1])
    changes = (words[order][1:] != words[order][:-1]).any(axis=1)
    classes = np.empty(len(words), np.int64)
    classes[order] = np.concatenate([np.zeros(min(1, len(words)), np.int64), np.cumsum(changes)])
    return classes


def ranks(words: NDArray[np.uint64]) -> Indices:
    """Place of each row of an (n, words) array in ascending order."""
    rank = np.empty(len(words), np.int64)
    rank[np.lexsort(words.T[::-1])] = np.arange(len(words))
    return rank


def smallest_of(classes: Indices, rank: Indices) -> Indices:
    """For each element the index of the element of its class that has the smallest rank."""
    order = np.lexsort((rank, classes))
    starts = np.flatnonzero(np.concatenate([[True], classes[order][1:] != classes[order][:-1]])[: len(order)])
    first = np.zeros(int(classes.max(initial=-1)) + 1, np.int64)
    first[classes[order][starts]] = order[starts]
    return first[classes]
