"""Image side of a training sample: shrink once, then a random crop that depends on (seed, epoch, sample) alone."""

from __future__ import annotations

import hashlib
import math

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def working_side(image_side: int, crop_scale: tuple[float, float]) -> int:
    """Shorter side to keep an image at, so that its smallest crop still has `image_side` pixels."""
    return math.ceil(image_side / math.sqrt(crop_scale[0]))


def shrink(image: Pixels, shorter_side: int) -> Pixels:
    """The image with its shorter side at `shorter_side`, averaged over areas; a small one is enlarged."""
    height, width = image.shape[:2]
    factor = shorter_side / min(height, width)
    if factor == 1:
        return image
    size = (max(shorter_side, round(width * factor)), max(shorter_side, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=_interpolation(factor)), np.uint8)


def random_crop(image: Pixels, side: int, crop_scale: tuple[float, float], seed: int, epoch: int, sample_id: str) -> Pixels:
    """A square crop of the image at `side` × `side`; `crop_scale` bounds its share of the largest square's area."""
    height, width = image.shape[:2]
    area, across, down = _uniform(seed, epoch, sample_id)
    low, high = crop_scale
    edge = min(min(height, width), max(1, round(math.sqrt(low + (high - low) * area) * min(height, width))))
    left, top = int(across * (width - edge + 1)), int(down * (height - edge + 1))
    crop = image[top : top + edge, left : left + edge]
    if edge == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=_interpolation(side / edge)), np.uint8)


def _interpolation(factor: float) -> int:
    return cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC


def _uniform(seed: int, epoch: int, sample_id: str) -> tuple[float, float, float]:
    """Three numbers in [0, 1) that no thread, worker or process count can change."""
    digest = hashlib.blake2b(f"{seed}:{epoch}:{sample_id}".encode(), digest_size=24).digest()
    area, across, down = (int.from_bytes(digest[i : i + 8], "little") >> 11 for i in (0, 8, 16))
    return area / (1 << 53), across / (1 << 53), down / (1 << 53)
