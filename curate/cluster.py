"""k-means over embeddings: centroids are fitted on a sample, then any number of points find their nearest one, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]
"""(n, dim), float16 or float32; a mapped file will do."""

_POINTS, _CENTROIDS = 2048, 8192  # a block of products takes 64 MiB
_SPLIT = 1 / 1024


def fit(points: Points, count: int, iterations: int = 20, seed: int = 0, *, spherical: bool = False) -> NDArray[np.float32]:
    """`count` centroids (count, dim) of the points: Lloyd's algorithm by Euclidean distance, from points drawn without repetition.

    Centroids are plain means, no unit vectors. With `spherical` they have length 1 and the nearest has the largest product
    (Dhillon, Modha: Concept decompositions for large sparse text data using clustering, Machine Learning 42, 2001): for points of
    length 1. A centroid that has lost all its points moves beside that of the largest cluster, as in Faiss (Douze et al.,
    arXiv:2401.08281). Beside the points, memory holds two sets of centroids. Raises ValueError when there are fewer points than
    centroids.
    """
    if len(points) < count:
        raise ValueError(f"{count} clusters of {len(points)} points")
    drawn = np.sort(np.random.default_rng(seed).choice(len(points), count, replace=False))
    centroids = points[drawn].astype(np.float32)
    for _ in range(iterations):
        offsets = None if spherical else -(centroids**2).sum(axis=1) / 2
        centroids = _means(points, nearest(points, centroids, offsets)[0], count)
        if spherical:
            centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)  # opposite points have no mean direction
    return centroids


def nearest(
    points: Points, centroids: NDArray[np.float32], offsets: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each point the centroid of the largest inner product, the first of equal ones, and that product: (n,) int32, (n,) float32.

    `offsets` (count,) are added to the products: minus half the centroids' squared lengths gives the nearest by distance.
    """
    found, best = np.zeros(len(points), np.int32), np.full(len(points), -np.inf, np.float32)
    for start, block in blocks(points, _POINTS):
        here = slice(start, start + len(block))
        for first in range(0, len(centroids), _CENTROIDS):
            last = first + _CENTROIDS
            products = block @ centroids[first:last].T
            if offsets is not None:
                products += offsets[first:last]
            place = products.argmax(axis=1)
            value = products[np.arange(len(block)), place]
            better = value > best[here]
            found[here][better], best[here][better] = place[better] + first, value[better]
    return found, best


def blocks(points: Points, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The points as float32, `size` at a time, each time with the first one's place."""
    for start in range(0, len(points), size):
        yield start, np.asarray(points[start : start + size], np.float32)


def _means(points: Points, of: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """The mean of each cluster's points."""
    sums, sizes = np.zeros((count, points.shape[1]), np.float64), np.bincount(of, minlength=count)
    for start, block in blocks(points, _POINTS):
        mine = of[start : start + len(block)]
        order = np.argsort(mine, kind="stable")
        members, first = np.unique(mine[order], return_index=True)
        sums[members] += np.add.reduceat(block[order], first, axis=0, dtype=np.float64)
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    _refill(means, sizes)
    return means


def _refill(means: NDArray[np.float32], sizes: NDArray[np.int64]) -> None:
    """Empty clusters take half of the largest one each: two copies of its centroid, a thousandth apart."""
    shift = np.where(np.arange(means.shape[1]) % 2, -_SPLIT, _SPLIT).astype(np.float32)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        means[empty] = means[largest] * (1 + shift)
        means[largest] *= 1 - shift
        sizes[empty] = sizes[largest] // 2
        sizes[largest] -= sizes[empty]
