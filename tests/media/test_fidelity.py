"""Stored pixels beside those of img2dataset's own Resizer, which decodes every file at full size."""

from __future__ import annotations

import functools
import importlib.util
import io
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from curate.media.image import ImageSettings, decode_rgb, fit, header, prepare
from curate.media.image import _decoded as decode_at
from curate.media.resize import extent_of, quick_size
from tests.media.photos import Pixels, jpeg, photo_like, text_page
from tests.media.test_header import exif

MODES = ("no", "keep_ratio", "keep_ratio_largest", "center_crop", "border")
PHOTO_SIZES = [(640, 427), (700, 525), (741, 500), (872, 1000), (1024, 683), (1333, 750), (899, 601)]
ODD_SIZES = [
    (257, 256), (256, 257), (300, 256), (511, 513), (513, 511), (333, 1000), (1000, 333), (1, 700), (700, 1), (5, 3), (255, 255),
    (256, 256), (259, 777), (1023, 769), (17, 4000), (640, 640), (385, 578), (514, 1027), (769, 256), (97, 311),
]  # fmt: skip

needs_peer = pytest.mark.skipif(
    sys.version_info >= (3, 13) or importlib.util.find_spec("img2dataset") is None,
    reason="img2dataset cannot be imported here (it needs Python below 3.13), so there is nothing to compare with",
)


@functools.cache
def resizer_class() -> Any:
    import os

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for news otherwise
    from img2dataset.resizer import Resizer

    return Resizer


def peer(data: bytes, mode: str, size: int = 256, only_shrink: bool = True) -> Pixels:
    """What img2dataset stores of a file, as lossless pixels."""
    resizer = resizer_class()(size, mode, only_shrink, encode_format="png", encode_quality=1)
    stored, _, _, _, _, error = resizer(io.BytesIO(data))
    assert error is None, error
    return np.asarray(cv2.cvtColor(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def ours(data: bytes, mode: str, decode: str, size: int = 256, only_shrink: bool = True) -> Pixels:
    """What we store of it, as lossless pixels."""
    said = {"resize_mode": mode, "size": size, "only_shrink": only_shrink, "decode": decode, "format": "png", "png_compression": 1}
    return decode_rgb(prepare(data, ImageSettings.model_validate(said)).data)


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; 99 for equal pixels."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


@functools.cache
def photos() -> tuple[bytes, ...]:
    """JPEGs at quality 85, as cameras and sites make them."""
    return tuple(jpeg(photo_like(seed, *size)) for seed, size in enumerate(PHOTO_SIZES))


@functools.cache
def pages() -> tuple[bytes, ...]:
    return tuple(jpeg(text_page(seed, *size)) for seed, size in enumerate([(640, 480), (1000, 700), (744, 1052)]))


@needs_peer
@pytest.mark.parametrize("only_shrink", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_sizes_are_those_of_img2dataset(mode: str, only_shrink: bool) -> None:
    settings = ImageSettings.model_validate({"resize_mode": mode, "size": 64, "only_shrink": only_shrink})
    for width, height in [(max(1, w // 4), max(1, h // 4)) for w, h in ODD_SIZES + PHOTO_SIZES]:
        data = jpeg(np.zeros((height, width, 3), np.uint8))
        wanted = peer(data, mode, 64, only_shrink).shape
        assert fit(width, height, settings).framed == (wanted[1], wanted[0]), (width, height)
        assert ours(data, mode, "fast", 64, only_shrink).shape == wanted


@needs_peer
@pytest.mark.parametrize("mode", MODES)
def test_fast_photos_look_like_full_decoding(mode: str) -> None:
    found = [psnr(ours(data, mode, "fast"), peer(data, mode)) for data in photos()[: 2 if mode == "no" else None]]
    print(f"photos {mode}: median {np.median(found):.1f} dB, minimum {min(found):.1f} dB")
    assert np.median(found) >= 37 and min(found) >= 30


@needs_peer
@pytest.mark.parametrize("mode", MODES)
def test_text_is_the_hardest_and_stays_readable(mode: str) -> None:
    found = [psnr(ours(data, mode, "fast"), peer(data, mode)) for data in pages()]
    print(f"text pages {mode}: median {np.median(found):.1f} dB, minimum {min(found):.1f} dB")
    assert min(found) >= 20


@needs_peer
@pytest.mark.parametrize("mode", MODES)
def test_faithful_is_full_decoding(mode: str) -> None:
    found = [psnr(ours(data, mode, "faithful"), peer(data, mode)) for data in photos()[::3] + pages()[:1]]
    assert min(found) >= 50


@pytest.mark.parametrize("size", [(741, 500), (1003, 669), (1229, 850)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_decoding_moves_nothing(size: tuple[int, int], orientation: int) -> None:
    """At a scale of n/8 the last row and column are picture only in part; stretched over, they would shift all others."""
    width, height = size
    ramp = np.add.outer(np.arange(height) * 0.3, np.arange(width) * 0.25) * (200 / min(size))
    pixels = np.repeat(((np.sin(ramp) + 1) * 127).astype(np.uint8)[:, :, None], 3, axis=2)
    data = jpeg(pixels, 95, exif=b"Exif\0\0" + exif(orientation))
    fast, faithful = (ours(data, "keep_ratio", decode, 200) for decode in ("fast", "faithful"))
    edges: list[Callable[[Pixels], Pixels]] = [lambda p: p[:20], lambda p: p[-20:], lambda p: p[:, :20], lambda p: p[:, -20:]]
    assert min(psnr(edge(fast), edge(faithful)) for edge in edges) >= 42


def test_scaled_decoding_always_holds_all_of_the_wanted_size() -> None:
    """Any size in, any size out: never is a picture decoded too small and then stretched."""
    drawn = np.random.default_rng(3)
    for _ in range(120):
        width, height, wanted = (int(value) for value in drawn.integers(1, 700, 3))
        data = jpeg(drawn.integers(0, 256, (height, width, 3), np.uint8), 50)
        found = header(data)
        how = fit(width, height, ImageSettings(size=wanted, resize_mode="keep_ratio_largest"))
        pixels = decode_at(data, found, quick_size(found, how.scaled))
        reach = extent_of(pixels, found)
        assert reach[0] >= how.scaled[0] and reach[1] >= how.scaled[1]
        assert any(reach == (width * n / 8, height * n / 8) for n in (1, 2, 4, 8))
