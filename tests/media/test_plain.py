"""Sharpness and plainness against their definitions, written out in numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from curate.media.image import plain_share, sharpness
from tests.score.pools import noise


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    grey = np.pad(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(float), 1, mode="reflect")
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    assert sharpness(pixels) == pytest.approx(laplacian.var(), rel=1e-9)


def test_a_blurred_picture_is_less_sharp_and_a_blank_one_not_at_all() -> None:
    pixels = noise(2, 200, 300)
    sharp = [sharpness(pixels), *(sharpness(np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma))) for sigma in (1, 3))]
    assert sharp == sorted(sharp, reverse=True) and sharp[0] > sharp[2]
    assert sharpness(np.full((30, 20, 3), 90, np.uint8)) == 0.0


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 3)])
def test_any_shape_has_values(shape: tuple[int, int, int]) -> None:
    assert sharpness(np.full(shape, 255, np.uint8)) == 0.0 and plain_share(np.full(shape, 255, np.uint8)) == 1.0


def test_the_most_frequent_colours_share() -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:4] = (250, 10, 130)
    pixels[4:7] = (16, 0, 0)
    assert plain_share(pixels) == pytest.approx(0.4)
    pixels[4:] = (255, 15, 143)  # the same step of 16 in each channel
    assert plain_share(pixels) == 1.0
