"""k-means against itself in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from curate import cluster


def clumps(count: int, each: int, dim: int = 8) -> NDArray[np.float32]:
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(count, dim)) * 4
    points = np.concatenate([centre + draw.normal(size=(each, dim)) * 0.1 for centre in centres])
    return points[draw.permutation(len(points))].astype(np.float32)


def plain(points: NDArray[np.float32], centroids: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    for _ in range(iterations):
        of = [
            min(range(len(centroids)), key=lambda k: (sum((a - b) ** 2 for a, b in zip(point, centroids[k], strict=True)), k))
            for point in points
        ]
        centroids = np.array(
            [np.mean([point for point, k in zip(points, of, strict=True) if k == mine], axis=0) for mine in range(len(centroids))]
        )
    return centroids


def test_lloyd_is_lloyd() -> None:
    points = clumps(3, 20)
    first = points[np.sort(np.random.default_rng(5).choice(60, 4, replace=False))]
    np.testing.assert_allclose(cluster.fit(points, 4, 3, seed=5), plain(points, first.astype(float), 3), atol=1e-4)


def test_nearest_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    points, centroids = draw.normal(size=(101, 6)).astype(np.float16), draw.normal(size=(31, 6)).astype(np.float32)
    centroids[30] = centroids[4]  # of equal ones the first
    monkeypatch.setattr(cluster, "_POINTS", 10)
    monkeypatch.setattr(cluster, "_CENTROIDS", 7)
    products = points.astype(np.float32) @ centroids.T
    found, value = cluster.nearest(points, centroids)
    assert found.tolist() == products.argmax(axis=1).tolist() and 4 in found and 30 not in found
    np.testing.assert_allclose(value, products.max(axis=1), rtol=1e-6)
    by_distance = ((points.astype(np.float32)[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    assert cluster.nearest(points, centroids, -(centroids**2).sum(axis=1) / 2)[0].tolist() == by_distance.tolist()


def test_no_cluster_stays_empty_and_clumps_are_found() -> None:
    points = np.concatenate([np.tile(np.float32([1, 0]), (90, 1)), np.tile(np.float32([0, 1]), (10, 1))])
    centroids = cluster.fit(points, 3, 5)  # equal points leave one of three without any
    assert np.isfinite(centroids).all() and len(np.unique(cluster.nearest(points, centroids)[0])) >= 2
    spread = clumps(12, 30)
    offsets = -((found := cluster.fit(spread, 40, 10)) ** 2) @ np.full(8, 0.5, np.float32)
    of, value = cluster.nearest(spread, found, offsets)
    inertia = ((spread**2).sum(axis=1) - 2 * value).mean()
    assert len(np.unique(of)) > 30 and inertia < 0.1


def test_fewer_points_than_clusters() -> None:
    with pytest.raises(ValueError, match="5 clusters of 4 points"):
        cluster.fit(np.eye(4, dtype=np.float32), 5)
