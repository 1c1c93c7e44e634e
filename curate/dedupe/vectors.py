"""Cosines of stored embeddings: most of them in 32 bits and many at once, in 64 bits wherever rounding could decide.

A matrix product in 32 bits rounds otherwise with another number of threads, another library or other neighbours in its block.
What is decided here is not: a decision that lies within `slack` of its border is taken again in 64 bits, row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.embeddings import Stored, Unit, units

Indices = NDArray[np.int64]
Double = NDArray[np.float64]

_ROWS = 4096  # of one block, so that what is computed of it stays small
_CENTROIDS = 4096
_TINY = 1e-300


def slack(dim: int) -> float:
    """How far a cosine of two `units`, computed in 32 bits, can be from the true one: each of `dim` sums and the four divisions round."""
    return (dim + 4) * 2.0**-24


def cosines(one: Stored | Unit, other: Stored | Unit) -> Double:
    """Cosine of row i of `one` and row i of `other`, in 64 bits; does not depend on the other rows. With a row of zeros it is 0."""
    found = np.empty(len(one))
    for at in range(0, len(one), _ROWS):
        left, right = (vectors[at : at + _ROWS].astype(np.float64) for vectors in (one, other))
        lengths = np.sqrt(np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right))
        found[at : at + _ROWS] = np.einsum("ij,ij->i", left, right) / np.maximum(lengths, _TINY)
    return found


def nearest(vectors: Stored, centroids: Unit) -> tuple[Indices, Double]:
    """For each row the centroid with the largest cosine, of equal ones the first; and that cosine."""
    blocks = [_nearest(vectors[at : at + _ROWS], centroids) for at in range(0, len(vectors), _ROWS)]
    chosen = np.concatenate([np.zeros(0, np.int64), *blocks])
    closeness = [cosines(vectors[at : at + _ROWS], centroids[chosen[at : at + _ROWS]]) for at in range(0, len(vectors), _ROWS)]
    return chosen, np.concatenate([np.zeros(0), *closeness])


def _nearest(vectors: Stored, centroids: Unit) -> Indices:
    rows, unit = np.arange(len(vectors)), units(vectors)
    best, second = np.full((2, len(vectors)), -2, np.float32)
    chosen = np.zeros(len(vectors), np.int64)
    for at in range(0, len(centroids), _CENTROIDS):
        cosine = unit @ centroids[at : at + _CENTROIDS].T
        place = cosine.argmax(axis=1)
        top = cosine[rows, place]
        cosine[rows, place] = -2
        second = np.maximum(np.maximum(second, cosine.max(axis=1)), np.minimum(best, top))
        chosen = np.where(top > best, at + place, chosen)
        best = np.maximum(best, top)
    close = np.flatnonzero(best - second <= 2 * slack(vectors.shape[1]))
    chosen[close] = _settled(vectors[close], unit[close], best[close], centroids)
    return chosen


def _settled(vectors: Stored, unit: Unit, best: NDArray[np.float32], centroids: Unit) -> Indices:
    """The nearest centroid of rows for which 32 bits leave several."""
    rows, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for at in range(0, len(centroids), _CENTROIDS):
        row, number = np.nonzero(unit @ centroids[at : at + _CENTROIDS].T >= (best - np.float32(2 * slack(vectors.shape[1])))[:, None])
        rows.append(row)
        numbers.append(at + number)
    row, centroid = np.concatenate(rows), np.concatenate(numbers)
    order = np.lexsort((centroid, -cosines(vectors[row], centroids[centroid]), row))
    return np.asarray(centroid[order][np.unique(row[order], return_index=True)[1]])
