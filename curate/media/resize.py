"""From decoded pixels to those that are stored: turned upright, scaled, blurred, cropped or bordered."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from curate.media.blur import Box, blur, upright_boxes
from curate.media.header import Header
from curate.media.settings import ImageSettings

Rgb = npt.NDArray[np.uint8]
"""Pixels, shape (height, width, 3), red first."""

_FLOAT_PIXELS = 1 << 20  # larger pictures would need much memory as floats


@dataclass(frozen=True)
class Fit:
    """How an image is made to fit: scaled to `scaled`, then cropped or bordered to `framed`; (width, height) in pixels."""

    scaled: tuple[int, int]
    framed: tuple[int, int]


def fit(width: int, height: int, settings: ImageSettings) -> Fit:
    """What the resize mode makes of an upright image of this size."""
    mode, size = settings.resize_mode, settings.size
    side = min(width, height) if mode in ("keep_ratio", "center_crop") else max(width, height)
    if mode == "no" or (settings.only_shrink and side <= size):
        return Fit((width, height), (width, height))
    scaled = (max(1, round(width * size / side)), max(1, round(height * size / side)))
    return Fit(scaled, (size, size) if mode in ("center_crop", "border") else scaled)


def resize(pixels: Rgb, how: Fit) -> Rgb:
    """Scales by area averaging down or Lanczos up; then takes the middle, or puts white around."""
    return frame(scale(pixels, how.scaled, (pixels.shape[1], pixels.shape[0])), how)


def scale(pixels: Rgb, size: tuple[int, int], extent: tuple[float, float], quick: bool = False) -> Rgb:
    """Pixels at `size`, (width, height); `extent` is how much of theirs the picture fills, from the upper left corner.

    `quick` interpolates linearly where that leaves out no pixel, below a ratio of 2: five times as fast as averaging, and
    after scaled decoding no further from averages of the full-size picture (tests/bench/pixels.py).
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if size[0] <= extent[0] and size[1] <= extent[1]:
        if quick and extent[0] < 2 * size[0] and extent[1] < 2 * size[1]:
            return _cut(cv2.resize(pixels, None, None, size[0] / extent[0], size[1] / extent[1], cv2.INTER_LINEAR), size)
        return _averaged(pixels, size, extent)
    return as_rgb(cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4))


def _averaged(pixels: Rgb, size: tuple[int, int], extent: tuple[float, float]) -> Rgb:
    """Area averaging. OpenCV is a fifth faster in float32, with the same result unless both ratios are whole numbers."""
    height, width = pixels.shape[:2]
    whole = width % size[0] == 0 and height % size[1] == 0 and (width, height) == extent
    if whole or width * height > _FLOAT_PIXELS:
        return _cut(cv2.resize(pixels, None, None, size[0] / extent[0], size[1] / extent[1], cv2.INTER_AREA), size)
    averaged = cv2.resize(pixels.astype(np.float32), None, None, size[0] / extent[0], size[1] / extent[1], cv2.INTER_AREA)
    return _cut(cv2.convertScaleAbs(averaged), size)


def _cut(array: npt.NDArray[np.generic], size: tuple[int, int]) -> Rgb:
    return as_rgb(array[: size[1], : size[0]])


def quick_size(found: Header, wanted: tuple[int, int]) -> tuple[int, int]:
    """Upright size of a JPEG at the smallest scale of 1/8, 1/4 and 1/2 that holds all of `wanted`.

    The other scales of libjpeg have no vector code: decoding at 3/8 takes as long as at 1/2, at 5/8 longer than at 1.
    """
    width, height = found.upright
    eighths = next((n for n in (1, 2, 4) if width * n >= 8 * wanted[0] and height * n >= 8 * wanted[1]), 8)
    return -(-width * eighths // 8), -(-height * eighths // 8)


def extent_of(pixels: Rgb, found: Header) -> tuple[float, float]:
    """How much of a decoded file's (width, height) is picture: JPEGs scaled by n/8 end in a pixel that is so only in part."""
    height, width = pixels.shape[:2]
    eighths = min(8, 8 * width // found.width, 8 * height // found.height)
    return min(width, found.width * eighths / 8), min(height, found.height * eighths / 8)


def hide(pixels: Rgb, boxes: tuple[Box, ...], orientation: int) -> Rgb:
    """Upright pixels with the boxes blurred; lists do not say whether they saw the picture upright, so both are."""
    if not boxes:
        return pixels
    return blur(pixels, boxes if orientation == 1 else (*boxes, *upright_boxes(boxes, orientation)))


def frame(pixels: Rgb, how: Fit) -> Rgb:
    """The middle of scaled pixels, or all of them with white around."""
    left, top = (how.scaled[0] - how.framed[0]) // 2, (how.scaled[1] - how.framed[1]) // 2
    if left < 0 or top < 0:
        return _bordered(pixels, how.framed)
    return np.ascontiguousarray(pixels[top : top + how.framed[1], left : left + how.framed[0]])


def _bordered(pixels: Rgb, size: tuple[int, int]) -> Rgb:
    height, width = pixels.shape[:2]
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def as_rgb(array: npt.NDArray[np.generic]) -> Rgb:
    """Without gaps in memory, as the encoders want it."""
    return np.ascontiguousarray(array, dtype=np.uint8)


def as_stored(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Size in the file of what is (width, height) when upright."""
    return (size[1], size[0]) if orientation >= 5 else size


def upright(pixels: Rgb, orientation: int) -> Rgb:
    """Applies EXIF orientation (CIPA DC-008, tag 0x0112): the stored picture becomes the one that was seen."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
