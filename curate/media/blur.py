"""Boxes made unrecognisable: faces that a list points out, before a picture is stored."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of width and height, as img2dataset and DataComp write them."""

MARGIN = 0.1  # of the longer side, on each side: Yang et al., "A Study of Face Obfuscation in ImageNet" (2022)
CELLS = 6  # what is left of a box along its longer side
MAX_BOXES = 10_000
_OUTSIDE = 0.5  # detectors reach over the rim; numbers much beyond it are pixels, not fractions


class BadBoxes(ValueError):
    """A text that should list boxes does not."""


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Boxes of a JSON list of [left, top, right, bottom]; empty text counts as none. Raises BadBoxes."""
    try:
        found = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError):
        raise BadBoxes("not JSON") from None
    if not isinstance(found, list) or len(found) > MAX_BOXES:
        raise BadBoxes("not a list of boxes")
    return tuple(checked_box(entry) for entry in found)


def checked_box(entry: object) -> Box:
    """Four fractions in order. Raises BadBoxes for anything else: numbers of pixels, too few, one that is none."""
    if not isinstance(entry, list) or len(entry) != 4 or not all(_is_fraction(value) for value in entry):
        raise BadBoxes("a box is four fractions of width and height")
    left, top, right, bottom = (float(value) for value in entry)
    if right < left or bottom < top:
        raise BadBoxes("a box ends before it begins")
    return left, top, right, bottom


def _is_fraction(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_OUTSIDE <= value <= 1 + _OUTSIDE  # false for NaN, and for whole numbers beyond any float


def upright_boxes(boxes: tuple[Box, ...], orientation: int) -> tuple[Box, ...]:
    """The boxes of a stored picture, as they lie after its EXIF orientation (1 to 8) was applied."""
    return tuple(_turned(box, orientation) for box in boxes)


def _turned(box: Box, orientation: int) -> Box:
    left, top, right, bottom = box
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if orientation in (3, 4, 7, 8):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def blur(pixels: npt.NDArray[np.uint8], boxes: tuple[Box, ...]) -> npt.NDArray[np.uint8]:
    """A copy of (height, width, 3) pixels in which at most 6 x 6 smoothed means are left of each box and its margin."""
    blurred = pixels.copy()
    height, width = pixels.shape[:2]
    for box in boxes:
        left, top, right, bottom = _with_margin(box, width, height)
        if left < right and top < bottom:
            blurred[top:bottom, left:right] = _mosaic(pixels[top:bottom, left:right])
    return blurred


def _with_margin(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, rounded outwards and cut at the rim."""
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    margin = MARGIN * max(right - left, bottom - top)
    return (
        max(0, math.floor(left - margin)),
        max(0, math.floor(top - margin)),
        min(width, math.ceil(right + margin)),
        min(height, math.ceil(bottom + margin)),
    )


def _mosaic(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    cell = max(1.0, max(height, width) / CELLS)
    cells = cv2.resize(pixels, (max(1, int(width / cell)), max(1, int(height / cell))), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
