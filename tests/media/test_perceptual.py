"""Perceptual hashes: close for the same picture, far for others."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.fft import dctn

from curate.media.image import decode_rgb, grey_entropy, phash


def photo(seed: int, width: int = 480, height: int = 320) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def distance(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def test_fits_a_signed_64_bit_column() -> None:
    hashes = [phash(photo(seed)) for seed in range(50)]
    assert all(-(2**63) <= value < 2**63 for value in hashes) and min(hashes) < 0 < max(hashes)
    assert len(set(hashes)) == 50


def test_copies_are_close_and_others_far() -> None:
    for seed in range(20):
        original = photo(seed)
        stream = io.BytesIO()
        Image.fromarray(original).save(stream, "JPEG", quality=50)
        smaller = np.asarray(Image.fromarray(original).resize((240, 160), Image.Resampling.BOX))
        brighter = np.clip(original * 0.9 + 8, 0, 255).astype(np.uint8)
        assert max(distance(phash(original), phash(copy)) for copy in (decode_rgb(stream.getvalue()), smaller, brighter)) <= 4
        assert distance(phash(original), phash(photo(seed + 100))) > 12


def test_is_the_published_transform() -> None:
    original = photo(3, 32, 32)
    grey = np.asarray(Image.fromarray(original).convert("L")).astype(float)
    low = dctn(grey, norm="ortho")[1:9, 1:9].ravel()
    bits = "".join("1" if value > np.median(low) else "0" for value in low)
    assert distance(phash(original), int(bits, 2)) <= 2  # OpenCV and Pillow round grey differently


def test_flat_pictures_hash_alike() -> None:
    assert phash(np.full((50, 60, 3), 7, np.uint8)) == phash(np.full((300, 200, 3), 130, np.uint8))


def test_entropy_in_bits() -> None:
    assert grey_entropy(np.full((9, 9, 3), 40, np.uint8)) == 0.0
    half = np.zeros((10, 10, 3), np.uint8)
    half[:5] = 255
    assert abs(grey_entropy(half) - 1.0) < 1e-9
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert abs(grey_entropy(ramp) - 8.0) < 1e-9
