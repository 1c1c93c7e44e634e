"""Is one picture a copy of the other, whole or cut at its borders? A look at the pixels, for the few pairs that a descriptor or hash names.

The smaller frame is sought in the larger one at every scale that leaves at least `least_share` of its sides (normalised cross-correlation,
as OpenCV's matchTemplate computes it), then the place is made exact by ECC (Evangelidis, Psarakis: Parametric image alignment using
enhanced correlation coefficient maximization, PAMI 2008). What is left is a correlation of grey values at the exact place, which ignores
brightness and contrast, and the colours of both there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.media.image import Rgb

SIDE = 96  # pixels of the longer side at which places are sought
_EXACT = 2  # times that for the exact place
_STEPS = 12  # scales between the whole and the smallest crop
_SEARCHED = 0.5  # a place whose correlation is below is not made exact
_GRID = 8
_UNTIL = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
_EDGE = 0.02  # of each side: what the border shows is half outside

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """How alike two pictures are where they lie on each other.

    `correlation` of grey values, -1 to 1; `chroma` is the largest difference between the channels' errors in any of 8 x 8 cells, 0 to
    255, after brightness; `share` of the larger frame's area that both show.
    """

    correlation: float
    chroma: float
    share: float


def align(one: Rgb, other: Rgb, least_share: float = 0.8) -> Alignment:
    """The better of both ways round: `one` cut out of `other`, or `other` out of `one`; each side at least `least_share` of it."""
    return max((_cut_out(a, b, least_share) for a, b in ((one, other), (other, one))), key=lambda found: found.correlation)


def _cut_out(part: Rgb, whole: Rgb, least_share: float) -> Alignment:
    whole = _scaled(whole, SIDE * _EXACT)
    place = _sought(_grey(part), _grey(whole), least_share)
    if place is None:
        return Alignment(-1.0, 255.0, 0.0)
    left, top, width, height = place
    part = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    warp, everywhere = np.array([[1, 0, left], [0, 1, top]], np.float32), np.full(whole.shape[:2], 255, np.uint8)
    try:
        correlation, found = cv2.findTransformECC(_grey(part), _grey(whole), warp, cv2.MOTION_AFFINE, _UNTIL, everywhere, 3)
    except cv2.error:  # it does not converge: two pictures, or nothing to hold on to
        return Alignment(-1.0, 255.0, 0.0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = np.asarray(cv2.warpAffine(whole, np.asarray(found), (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return Alignment(float(correlation), _chroma(part, seen), width * height / (whole.shape[0] * whole.shape[1]))


def _sought(part: Floats, whole: Floats, least_share: float) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the best place of `part` in `whole`, in the pixels of `whole`; None where none is good."""
    scale = SIDE / max(whole.shape)
    small = cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    best, found = _SEARCHED, None
    for width, height in _sizes(part.shape, small.shape, least_share):
        score = cv2.matchTemplate(small, cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), cv2.TM_CCOEFF_NORMED)
        at = int(score.argmax())
        if score.flat[at] > best:
            best, (top, left) = float(score.flat[at]), divmod(at, score.shape[1])
            found = (left, top, width, height)
    if found is None:
        return None
    left, top, width, height = (round(value / scale) for value in found)
    return left, top, min(width, whole.shape[1] - left), min(height, whole.shape[0] - top)


def _sizes(part: tuple[int, ...], whole: tuple[int, ...], least_share: float) -> list[tuple[int, int]]:
    """Sizes at which `part` may lie in `whole`: its own shape at every scale, and stretched to the whole."""
    found = [(whole[1], whole[0])]
    fits = min(whole[0] / part[0], whole[1] / part[1])
    for share in np.linspace(least_share, 1, _STEPS):
        width, height = round(part[1] * fits * share), round(part[0] * fits * share)
        if width >= least_share * whole[1] and height >= least_share * whole[0]:
            found.append((width, height))
    return found


def _chroma(one: Rgb, other: Rgb) -> float:
    """See `Alignment`; the border is left out."""
    trim = [max(1, round(_EDGE * side)) for side in one.shape[:2]]
    inner = np.s_[trim[0] : -trim[0], trim[1] : -trim[1]]
    left, right = (cv2.resize(picture[inner], (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32) for picture in (one, other))
    spread, mean = left - left.mean(), float(right.mean())
    gain = float(np.clip((spread * (right - mean)).sum() / max(float((spread**2).sum()), 1.0), 0.5, 2))
    error = np.clip(spread * gain + mean, 0, 255) - right
    return float((error.max(axis=2) - error.min(axis=2)).max())


def _scaled(picture: Rgb, side: int) -> Rgb:
    scale = side / max(picture.shape[:2])
    size = tuple(max(16, round(length * scale)) for length in picture.shape[1::-1])
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)


def _grey(picture: Rgb) -> Floats:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
