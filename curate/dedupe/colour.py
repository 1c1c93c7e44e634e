"""The second look at a candidate pair: do two colour grids show the same picture?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.settings import DedupeSettings

CELLS = 64
GRID_BYTES = CELLS * 3

Grids = NDArray[np.uint8]
"""Mean colours of 8 x 8 cells, shape (pictures, 192): cell by cell, red, green, blue."""


def same_picture(one: Grids, other: Grids, settings: DedupeSettings) -> NDArray[np.bool_]:
    """Whether row i of `one` and row i of `other` agree in every cell, up to brightness; symmetric.

    A brightened picture clips at white, so what one direction cannot explain the other may; either suffices.
    """
    left, right = one.astype(np.float32), other.astype(np.float32)
    return _explains(left, right, settings) | _explains(right, left, settings)


def _explains(source: NDArray[np.float32], target: NDArray[np.float32], settings: DedupeSettings) -> NDArray[np.bool_]:
    """Whether `target` is `source` under one gain and one offset, within the tolerances."""
    error = (_matched_brightness(source, target, settings.brightness_percent / 100) - target).reshape(-1, CELLS, 3)
    chroma = (error.max(axis=2) - error.min(axis=2)).max(axis=1)
    grey = np.abs(error.mean(axis=2)).max(axis=1)
    return np.asarray((chroma <= settings.chroma_tolerance) & (grey <= settings.grey_tolerance))


def _matched_brightness(source: NDArray[np.float32], target: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """`source` with the gain and offset that bring it nearest to `target` in the least-squares sense, both within `limit`."""
    source_mean, target_mean = source.mean(axis=1, keepdims=True), target.mean(axis=1, keepdims=True)
    centred = source - source_mean
    variance = (centred**2).mean(axis=1, keepdims=True)
    covariance = (centred * (target - target_mean)).mean(axis=1, keepdims=True)
    fitted = np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 1)
    gain = np.clip(fitted, 1 / (1 + limit), 1 + limit)
    offset = np.clip(target_mean - gain * source_mean, -255 * limit, 255 * limit)
    return np.asarray(np.clip(gain * source + offset, 0, 255), np.float32)
