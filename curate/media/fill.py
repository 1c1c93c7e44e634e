"""Boxes painted over with the colour around them, so that a model sees the picture without what stood there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RING = 0.25  # width of what is looked at around a box, as a share of its shorter side


def fill(pixels: npt.NDArray[np.uint8], boxes: Sequence[Sequence[float]]) -> npt.NDArray[np.uint8]:
    """A copy of (height, width, 3) pixels; each box (left, top, right, bottom as fractions) has the mean colour around it.

    As T-MARS masks text (arXiv 2307.03132). Around a box means a ring of a quarter of its shorter side, at least 2 pixels,
    less what lies in other boxes; where nothing is left of the ring, all that lies in no box; else the whole picture.
    """
    height, width = pixels.shape[:2]
    places = [_in_pixels(box, width, height) for box in boxes]
    free = np.ones((height, width), bool)
    for left, top, right, bottom in places:
        free[top:bottom, left:right] = False
    filled = pixels.copy()
    for left, top, right, bottom in places:
        ring = max(2, round(RING * min(right - left, bottom - top)))
        near = (slice(max(0, top - ring), bottom + ring), slice(max(0, left - ring), right + ring))
        around = pixels[near][free[near]]
        if not len(around):
            around = pixels[free] if free.any() else pixels.reshape(-1, 3)
        filled[top:bottom, left:right] = np.rint(around.mean(axis=0))
    return filled


def _in_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Rounded outwards and cut at the rim."""
    left, right = (min(max(value, 0.0), 1.0) * width for value in (box[0], box[2]))
    top, bottom = (min(max(value, 0.0), 1.0) * height for value in (box[1], box[3]))
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
