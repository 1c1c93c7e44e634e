"""Graphs whose components are known, by another method than the one under test."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def graph(pairs: int, chain: int, star: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a graph with a long chain, a giant star and many small components; nodes and pairs in random order."""
    random = np.random.default_rng(1)
    rest = pairs - chain - star
    loose = chain + star + 1 + random.integers(0, 2 * rest, (2, rest))
    one = np.concatenate([np.arange(chain), np.full(star, chain + 1), loose[0]])
    other = np.concatenate([np.arange(1, chain + 1), chain + 2 + np.arange(star), loose[1]])
    names, order = random.permutation(chain + star + 2 + 2 * rest), random.permutation(pairs)
    apart = one[order] != other[order]
    return names[one[order][apart]], names[other[order][apart]]


def smallest(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every node that is not the smallest of its component, with the smallest; by another method, in memory."""
    nodes, place = np.unique(np.concatenate([one, other]), return_inverse=True)
    edges = (np.ones(len(one), np.bool_), (place[: len(one)], place[len(one) :]))
    label = connected_components(coo_array(edges, shape=(len(nodes), len(nodes))), directed=False)[1]
    root = nodes[np.unique(label, return_index=True)[1]][label]
    return nodes[root != nodes], root[root != nodes]
