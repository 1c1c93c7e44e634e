"""Within one cluster: which rows have a near row before them, in the order in which rows are preferred.

Method: Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup: Data-efficient learning at web-scale through semantic deduplication
(arXiv:2303.09540), as public accounts of its procedure and an open re-implementation have it. In each k-means cluster the
rows are sorted by preference, then a row is removed when the largest of its cosines to *all* rows before it exceeds 1 − ε: the
largest number above it in its column of the upper triangle of the sorted matrix of cosines. Rows before it count whether they
are removed themselves or not, a cosine of exactly 1 − ε keeps, and of two clusters no rows are compared. These are not
connected components: a row that is near two rows that are not near each other goes, and both of those stay.

Here the triangle is computed strip by strip, so memory does not grow with the square of the cluster; equal vectors are one row
of it; and what lies within rounding of the border is compared in 64 bits, so that removals depend on no library and no thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.vectors import Double, Indices, cosines, slack
from curate.embeddings import Stored, Unit, units

STRIP = 256  # rows whose cosines to later ones are computed together; half a strip a row is computed in vain
_WIDE = 2048  # later rows at a time: what is computed stays in a processor's cache
_TILE_BYTES = 64 << 20  # of later rows that are held in 32 bits


@dataclass(frozen=True)
class Before:
    """What each row of a cluster, in order of preference, has before it."""

    parent: Indices  # place of the first row before it with a cosine above 1 - epsilon; -1 where there is none and the row stays
    similarity: (
        Double  # largest cosine to a row before it, at least 0, as 32 bits give it; above 1 - epsilon exactly where there is a parent
    )

    def roots(self) -> Indices:
        """For each row the one that stays in its place: its parent's parent's …, or itself."""
        root = np.where(self.parent < 0, np.arange(len(self.parent)), self.parent)
        while not np.array_equal(root, root[root]):
            root = root[root]
        return root


def near_before(stored: Stored, order: Indices, closeness: Double, epsilon: float) -> Before:
    """Compares the rows `stored[order]`, most preferred first; `closeness` is the cosine of each stored row to its centroid.

    `stored` may be mapped from a file: rows are read as they are needed.
    """
    leader = _first_equals(stored, order, closeness[order])
    distinct = np.flatnonzero(leader == np.arange(len(order)))
    triangle = _Triangle(stored, order[distinct], 1 - epsilon)
    triangle.compute()
    parent, similarity = np.full(len(order), -1, np.int64), np.ones(len(order))
    parent[distinct] = np.where(triangle.parent < 0, -1, distinct[triangle.parent])
    similarity[distinct] = triangle.similarity()
    copies = leader != np.arange(len(order))
    parent[copies] = np.where(parent[leader] < 0, leader, parent[leader])[copies]
    return Before(parent, similarity)


def _first_equals(stored: Stored, order: Indices, closeness: Double) -> Indices:
    """For each place the first with the same vector, itself included; equal vectors are equally close to their centroid."""
    first, of = np.unique(closeness, return_index=True, return_inverse=True)[1:]
    leader, itself = np.asarray(first[of], np.int64), np.arange(len(order))
    asked = np.flatnonzero(leader != itself)
    for at in range(0, len(asked), _WIDE):
        place = asked[at : at + _WIDE]
        other = (stored[order[place]] != stored[order[leader[place]]]).any(axis=1)
        leader[place[other]] = place[other]
    return leader


class _Triangle:
    """The upper triangle of the matrix of cosines of rows in order, of which no more than a strip is ever there."""

    def __init__(self, stored: Stored, order: Indices, border: float) -> None:
        self._stored, self._order, self._border, self._slack = stored, order, border, slack(stored.shape[1])
        self.parent = np.full(len(order), -1, np.int64)
        self._largest = np.zeros(len(order), np.float32)

    def compute(self) -> None:
        """All of it: a tile of later rows after the other, against every strip that begins before its end."""
        tile = max(1, _TILE_BYTES // (4 * self._stored.shape[1]) // STRIP) * STRIP
        for low in range(0, len(self._order), tile):
            later = self._units(low, low + tile)
            for first in range(0, low + len(later), STRIP):
                inside = first - low
                self._compare(first, later[inside : inside + STRIP] if inside >= 0 else self._units(first, first + STRIP), low, later)

    def similarity(self) -> Double:
        """The largest cosine in each column, on the side of the border that was decided for."""
        beyond = np.maximum(self._largest, np.nextafter(self._border, 2))
        return np.asarray(np.where(self.parent >= 0, beyond, np.minimum(self._largest, self._border)), np.float64)

    def _units(self, low: int, high: int) -> Unit:
        return units(self._stored[self._order[low:high]])

    def _compare(self, first: int, strip: Unit, low: int, later: Unit) -> None:
        """One strip of earlier rows with those of a tile that are after them."""
        inside = max(first - low, 0)
        for at in range(inside, len(later), _WIDE):
            cosine = strip @ later[at : at + _WIDE].T
            if low + at == first:
                cosine[:, : len(strip)][np.tri(len(strip), dtype=bool)] = -1  # a row is not before itself
            self._take(first, low + at, cosine)

    def _take(self, first: int, low: int, cosine: NDArray[np.float32]) -> None:
        here, top = slice(low, low + cosine.shape[1]), cosine.max(axis=0)
        np.maximum(self._largest[here], top, out=self._largest[here])
        asked = np.flatnonzero((top > self._border - self._slack) & (self.parent[here] < 0))
        if not asked.size:
            return
        seen = cosine[:, asked].T
        column, row = np.nonzero(seen > self._border - self._slack)
        unsure = np.abs(seen[column, row] - self._border) <= self._slack
        one, other = self._order[first + row[unsure]], self._order[low + asked[column[unsure]]]
        exceeds = np.ones(len(row), np.bool_)
        exceeds[unsure] = self._exceeds(one, other)
        found, at = np.unique(column[exceeds], return_index=True)
        self.parent[low + asked[found]] = first + row[exceeds][at]

    def _exceeds(self, one: Indices, other: Indices) -> NDArray[np.bool_]:
        pieces = [
            cosines(self._stored[one[at : at + _WIDE]], self._stored[other[at : at + _WIDE]]) > self._border
            for at in range(0, len(one), _WIDE)
        ]
        return np.concatenate([np.zeros(0, np.bool_), *pieces])
