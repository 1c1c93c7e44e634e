"""SemDeDup's removals against the published procedure in plain loops, ties and borders among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curate.dedupe import semdedup, vectors
from curate.dedupe.semdedup import near_before
from curate.dedupe.vectors import cosines, nearest
from curate.embeddings import units


def published(stored: np.ndarray, order: np.ndarray, epsilon: float) -> tuple[list[int], list[float]]:
    """First row before each one that is too near, and the largest cosine to one: the whole matrix, in exact enough numbers."""
    wide = stored[order].astype(np.longdouble)
    matrix = np.triu((wide @ wide.T) / np.outer(*[np.sqrt((wide**2).sum(axis=1))] * 2), 1)
    parents = [next((int(row) for row in range(place) if matrix[row, place] > 1 - epsilon), -1) for place in range(len(order))]
    removed = matrix.max(axis=0) > 1 - epsilon
    assert removed.tolist() == [parent >= 0 for parent in parents]
    return parents, matrix.max(axis=0).astype(float).tolist()


def clumped(rows: int, dim: int, seed: int, spread: float = 0.2) -> np.ndarray:
    """Rows around few directions; some are equal to another one."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, rows // 8), dim))
    made = centres[draw.integers(0, len(centres), rows)] + spread * draw.normal(size=(rows, dim))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    copies = draw.integers(0, rows, rows // 5)
    made[copies] = made[draw.integers(0, rows, len(copies))]
    return made.astype(np.float16)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("strip", "wide", "tile"), [(128, 2048, 64 << 20), (4, 8, 1), (4, 12, 16 * 4 * 24)])
def test_removals_are_the_published_ones(seed: int, strip: int, wide: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STRIP", strip), ("_WIDE", wide), ("_TILE_BYTES", tile)):
        monkeypatch.setattr(semdedup, name, value)
    stored, draw = clumped(150, 24, seed), np.random.default_rng(seed)
    closeness = cosines(stored, np.broadcast_to(draw.normal(size=24).astype(np.float32), stored.shape))
    order = np.lexsort((draw.permutation(150), closeness)) if seed % 2 else draw.permutation(150)
    for epsilon in (0.02, 0.05, 0.3):
        found = near_before(stored, order, closeness, epsilon)
        parents, largest = published(stored, order, epsilon)
        assert found.parent.tolist() == parents
        assert any(parent >= 0 for parent in parents) and any(parent < 0 for parent in parents)
        np.testing.assert_allclose(found.similarity, largest, atol=1e-6)
        assert ((found.similarity > 1 - epsilon) == (found.parent >= 0)).all()


def test_a_row_near_two_that_are_not_near_each_other_goes_alone() -> None:
    angle = np.deg2rad([0.0, 20.0, 10.0, 12.0])
    stored = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16)
    found = near_before(stored, np.arange(4), np.arange(4.0), 1 - float(np.cos(np.deg2rad(15))))
    assert found.parent.tolist() == [-1, -1, 0, 0]  # connected components would keep one row, this keeps two
    assert found.roots().tolist() == [0, 1, 0, 0]
    chain = near_before(stored, np.array([0, 2, 1, 3]), np.arange(4.0), 1 - float(np.cos(np.deg2rad(15))))
    assert chain.parent.tolist() == [-1, 0, 1, 0]  # the third is near the second alone, which is removed and counts all the same
    assert chain.roots().tolist() == [0, 0, 0, 0]


def test_a_cosine_on_the_border_keeps() -> None:
    stored = np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5009765625]], np.float16)
    found = near_before(stored[:2], np.arange(2), np.arange(2.0), 0.5)
    assert found.parent.tolist() == [-1, -1] and found.similarity.tolist() == [0, 0.5]
    beyond = near_before(stored, np.array([0, 2, 1]), np.arange(3.0), 0.5)
    assert beyond.parent.tolist() == [-1, -1, 1]
    inside = near_before(stored, np.array([0, 1, 2]), np.arange(3.0), 0.5 + 1e-9)
    assert inside.parent.tolist() == [-1, 0, 1]  # 32 bits cannot tell this border from the one above
    assert (inside.similarity > 0.5 - 1e-9).tolist() == [False, True, True]


def test_equal_rows_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.tile(clumped(6, 16, 1)[:3], (3000, 1))
    sizes: list[int] = []

    class Watched(semdedup._Triangle):
        def compute(self) -> None:
            sizes.append(len(self.parent))
            super().compute()

    monkeypatch.setattr(semdedup, "_Triangle", Watched)
    closeness = cosines(stored, np.broadcast_to(stored[0], stored.shape))
    found = near_before(stored, np.arange(9000), closeness, 1e-3)
    assert sizes[0] <= 3
    assert sorted(set(found.parent.tolist())) == [-1, *range(sizes[0])]
    assert (found.similarity[3:] == 1).all()


@pytest.mark.parametrize("count", [0, 1])
def test_clusters_of_nobody_and_of_one(count: int) -> None:
    found = near_before(clumped(8, 4, 0)[:count], np.arange(count), np.zeros(count), 0.1)
    assert found.parent.tolist() == [-1] * count and found.similarity.tolist() == [0] * count


def test_the_nearest_centroid_is_the_first_of_equal_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_CENTROIDS", 7)
    monkeypatch.setattr(vectors, "_ROWS", 10)
    stored, centroids = clumped(200, 16, 3), units(clumped(31, 16, 4))
    centroids[[9, 30]] = centroids[2]
    centroids[12] = np.nextafter(centroids[11], np.float32(2))  # nearer or farther by less than 32 bits of a product show
    exact = stored.astype(np.longdouble) @ centroids.astype(np.longdouble).T / np.linalg.norm(centroids.astype(np.longdouble), axis=1)
    chosen, closeness = nearest(stored, centroids)
    expected = exact.argmax(axis=1)
    assert chosen.tolist() == expected.tolist() and 2 in chosen and not {9, 30} & set(chosen.tolist()) and {11, 12} <= set(chosen.tolist())
    lengths = np.linalg.norm(stored.astype(np.float64), axis=1)
    np.testing.assert_allclose(closeness, exact.max(axis=1).astype(float) / lengths, rtol=1e-12)


def test_cosines_depend_on_no_other_row() -> None:
    stored: Any = clumped(5000, 37, 5)
    order = np.random.default_rng(6).permutation(5000)
    centroid = np.broadcast_to(units(stored[:1]), stored.shape)
    assert (cosines(stored, centroid)[order] == cosines(stored[order], centroid)).all()
    assert cosines(np.zeros((1, 37), np.float16), stored[:1]).tolist() == [0]
