"""The second look at a candidate pair: do two colour grids show the same picture?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.settings import DedupeSettings

CELLS = 64
GRID_BYTES = CELLS * 3

Grids = NDArray[np.uint8]
"""Mean colours of 8 x 8 cells, shape (pictures, 192): cell by cell, red, green, blue."""


UNCLIPPED = 5, 250
"""Where a cell's mean says what its pixels would be at another brightness."""


def same_picture(one: Grids, other: Grids, settings: DedupeSettings) -> NDArray[np.bool_]:
    """Whether row i of `one` and row i of `other` agree in every cell, up to brightness; symmetric.

    A brightened picture clips at white, so what one direction cannot explain the other may, and what all cells cannot
    explain those that are not white may: either suffices.
    """
    left, right = one.astype(np.float32), other.astype(np.float32)
    both = np.minimum(left, right) > UNCLIPPED[0], np.maximum(left, right) < UNCLIPPED[1]
    fits = np.ones_like(left), (both[0] & both[1]).astype(np.float32)
    found = [_explains(*pair, weight, settings) for pair in ((left, right), (right, left)) for weight in fits]
    return np.asarray(np.any(found, axis=0))


def _explains(
    source: NDArray[np.float32], target: NDArray[np.float32], weight: NDArray[np.float32], settings: DedupeSettings
) -> NDArray[np.bool_]:
    """Whether `target` is `source` under one gain and one offset, within the tolerances."""
    limit = settings.brightness_percent / 100
    gain, offset = _brightness(source, target, weight, limit)
    error = (np.clip(gain * source + offset, 0, 255) - target).reshape(-1, CELLS, 3)
    chroma = (error.max(axis=2) - error.min(axis=2)).max(axis=1)
    grey = np.abs(error.mean(axis=2)).max(axis=1)
    return np.asarray((chroma <= settings.chroma_tolerance) & (grey <= settings.grey_tolerance))


def _brightness(
    source: NDArray[np.float32], target: NDArray[np.float32], weight: NDArray[np.float32], limit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The gain and offset that bring `source` nearest to `target` in the weighted least-squares sense, both within `limit`."""
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    source_mean, target_mean = ((weight * side).sum(axis=1, keepdims=True) / total for side in (source, target))
    centred = weight * (source - source_mean)
    variance = (centred**2).sum(axis=1, keepdims=True) / total
    covariance = (centred * (target - target_mean)).sum(axis=1, keepdims=True) / total
    fitted = np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 1)
    gain = np.clip(fitted, 1 / (1 + limit), 1 + limit)
    return gain, np.clip(target_mean - gain * source_mean, -255 * limit, 255 * limit)
