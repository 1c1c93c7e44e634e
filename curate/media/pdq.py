"""PDQ, the 256-bit perceptual hash in which lists of known images are exchanged.

After Facebook's "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (2019) and the reference
code that came with it: luma, two passes of a Jarosz (box) filter, 64 x 64 samples, the 16 x 16 lowest frequencies of
their DCT but for the constant ones, each against the median. Two pictures match at 31 bits or fewer; a quality below 50
says that there is too little in the picture for its hash to mean anything.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

MATCH_BITS = 31
MIN_QUALITY = 50
HASH_BYTES = 32
_SAMPLES = 64
_LOW = 16
_PASSES = 2
_WEIGHTS = np.array([[0.299, 0.587, 0.114]], np.float32)
_MAX_SIDE = 1024  # larger pictures are averaged down first; the reference does so or not, depending on its language
_MIN_SIDE = 5

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pdq:
    """The hash as 32 bytes, most significant bit first, as lists write it in hex; `quality` is 0 to 100."""

    hash: bytes
    quality: int

    @property
    def usable(self) -> bool:
        """Whether the picture has enough in it for a match to mean something."""
        return self.quality >= MIN_QUALITY


def pdq(rgb: npt.NDArray[np.uint8]) -> Pdq:
    """Hash of (height, width, 3) pixels; pictures under 5 pixels have quality 0."""
    if min(rgb.shape[:2]) < _MIN_SIDE:
        return Pdq(bytes(HASH_BYTES), 0)
    samples = _decimated(_blurred(_luma(rgb)))
    low = _dct_rows() @ samples @ _dct_rows().T
    median = np.partition(low.ravel(), low.size // 2 - 1)[low.size // 2 - 1]
    bits = (low > median).ravel()[::-1]  # the first coefficient is the least significant bit
    return Pdq(np.packbits(bits).tobytes(), _quality(samples))


def distance_bits(one: bytes, other: bytes) -> int:
    """In how many of their bits two hashes of equal length differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _luma(rgb: npt.NDArray[np.uint8]) -> Floats:
    height, width = rgb.shape[:2]
    if max(height, width) > _MAX_SIDE:
        size = (min(width, _MAX_SIDE), min(height, _MAX_SIDE))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.transform(rgb.astype(np.float32), _WEIGHTS), np.float32)


def _blurred(luma: Floats) -> Floats:
    """Means over windows of 1/128 of each side, twice; at the borders over what there is of the window."""
    height, width = luma.shape
    size = _window(width), _window(height)
    for _ in range(_PASSES):
        sums = _window_sums(luma, size)
        luma = np.asarray(sums / _window_areas(height, width), np.float32)
    return luma


def _window(side: int) -> int:
    return -(-side // (2 * _SAMPLES))


def _window_sums(values: Floats, size: tuple[int, int]) -> Floats:
    """An even window reaches one further to the right and to the bottom."""
    anchor = ((size[0] - 1) // 2, (size[1] - 1) // 2)
    return np.asarray(cv2.boxFilter(values, -1, size, anchor=anchor, normalize=False, borderType=cv2.BORDER_CONSTANT), np.float32)


@functools.lru_cache(maxsize=256)
def _window_areas(height: int, width: int) -> Floats:
    """Pixels of the picture under the window around each place."""
    size = _window(width), _window(height)
    across = _window_sums(np.ones((1, width), np.float32), (size[0], 1))
    down = _window_sums(np.ones((height, 1), np.float32), (1, size[1]))
    return np.asarray(down * across, np.float32)


def _decimated(values: Floats) -> Floats:
    height, width = values.shape
    places = np.arange(_SAMPLES) + 0.5
    rows, columns = (places * height / _SAMPLES).astype(int), (places * width / _SAMPLES).astype(int)
    return np.asarray(values[rows[:, None], columns[None, :]], np.float32)


def _quality(samples: Floats) -> int:
    """Sum of the steps between neighbours, in hundredths of the grey range and cut to whole ones, over 90."""
    steps = [np.abs(np.trunc(np.diff(samples, axis=axis) * 100 / 255)).sum() for axis in (0, 1)]
    return min(100, int(sum(steps) / 90))


@functools.cache
def _dct_rows() -> Floats:
    """Rows 1 to 16 of the DCT-II matrix of size 64; shape (16, 64)."""
    k, n = np.meshgrid(np.arange(1, _LOW + 1), np.arange(_SAMPLES), indexing="ij")
    return np.asarray(np.sqrt(2 / _SAMPLES) * np.cos(np.pi / (2 * _SAMPLES) * k * (2 * n + 1)), np.float32)
