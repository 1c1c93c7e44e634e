"""What a picture looks like in a few numbers: a 64-bit DCT hash, entropy, sharpness, and how plain it is."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

_SIDE = 32
_LOW = 8


@functools.cache
def _dct_rows(size: int, count: int) -> npt.NDArray[np.float64]:
    """Rows 1 to `count` of the orthonormal DCT-II matrix of `size`, without the constant row 0; shape (count, size)."""
    k, n = np.meshgrid(np.arange(1, count + 1), np.arange(size), indexing="ij")
    return np.asarray(np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2 / size), np.float64)


def phash(rgb: npt.NDArray[np.uint8]) -> int:
    """64-bit perceptual hash of (height, width, 3) pixels, as a signed int64.

    Grey, area-averaged to 32 x 32, 2-D DCT-II, coefficients 1 to 8 in both directions against their median: the hash
    of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1, where the
    picture is mean-filtered and resized instead. Row by row, the first coefficient in bit 63.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    rows = _dct_rows(_SIDE, _LOW)
    # Rounding makes a flat picture's coefficients exact zeros, whose signs would otherwise be noise.
    low = np.round(rows @ small @ rows.T, 6).ravel()
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big", signed=True)


def grey_entropy(rgb: npt.NDArray[np.uint8]) -> float:
    """Shannon entropy of the 256-bin grey histogram, in bits (0 to 8); blank and placeholder images are near 0."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def sharpness(rgb: npt.NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey picture, in its own size: low where it is out of focus, 0 where it is blank.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study" (2000).
    """
    edges = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    return float(cv2.meanStdDev(edges)[1][0, 0] ** 2)


def plain_share(rgb: npt.NDArray[np.uint8]) -> float:
    """Share of pixels of the most frequent colour, of 4,096 (16 steps a channel): 1 for one colour, high for placeholders."""
    steps = (rgb >> 4).astype(np.uint16)
    counts = np.bincount((steps[..., 0] << 8 | steps[..., 1] << 4 | steps[..., 2]).ravel())
    return float(counts.max() / counts.sum())
