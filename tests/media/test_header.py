"""Signatures and headers, whole, cut and forged."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from curate.media.header import Header, MediaError, header, orientation, sniff

FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}


def encoded(kind: str, width: int = 37, height: int = 23, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def exif(value: int, order: str = "<") -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_allowed_formats_tell_their_size(name: str) -> None:
    data = encoded(FORMATS[name])
    assert sniff(data) == name
    found = header(data)
    assert (found.format, found.width, found.height, found.frames) == (name, 37, 23, 1)


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"progressive": True}, "JPEG"), ({"lossless": True}, "WEBP"), ({"exif": b"Exif\0\0" + exif(6)}, "WEBP"), ({"interlace": 1}, "PNG")],
)  # fmt: skip
def test_variants_tell_their_size(options: dict[str, object], kind: str) -> None:
    found = header(encoded(kind, **options))
    assert (found.width, found.height) == (37, 23)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_recognised(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (0, 100, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=50)
    assert header(stream.getvalue()).frames == (3 if kind == "PNG" else 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_found(kind: str, value: int) -> None:
    found = header(encoded(kind, exif=b"Exif\0\0" + exif(value, "<" if value % 2 else ">")))
    assert found.orientation == value
    assert found.upright == ((23, 37) if value >= 5 else (37, 23))


@pytest.mark.parametrize(
    ("kind", "mode", "options", "alpha"),
    [
        ("PNG", "RGB", {}, False), ("PNG", "L", {}, False), ("PNG", "P", {}, False), ("PNG", "RGBA", {}, True), ("PNG", "LA", {}, True),
        ("PNG", "P", {"transparency": 0}, True), ("PNG", "RGB", {"transparency": (0, 0, 0)}, True),
        ("WEBP", "RGB", {}, False), ("WEBP", "RGB", {"lossless": True}, False), ("JPEG", "RGB", {}, False),
    ],
)  # fmt: skip
def test_transparency_is_announced(kind: str, mode: str, options: dict[str, object], alpha: bool) -> None:
    assert header(encoded(kind, mode=mode, **options)).alpha == alpha


@pytest.mark.parametrize("lossless", [True, False])
def test_transparent_webp_is_announced(lossless: bool) -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (20, 10), (9, 9, 9, 80)).save(stream, "WEBP", lossless=lossless)
    assert header(stream.getvalue()).alpha


def test_orientation_that_makes_no_sense_is_upright() -> None:
    for raw in (
        b"",
        b"II*\0",
        exif(0),
        exif(9),
        b"XX*\0" + bytes(30),
        b"II*\0" + struct.pack("<I", 2**31),
        b"II*\0" + struct.pack("<IH", 8, 65535),
    ):
        assert orientation(raw) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_header_is_truncated_and_a_prefix_is_enough(name: str) -> None:
    data = encoded(FORMATS[name])
    for length in range(12, len(data)):
        try:
            found = header(data[:length])
        except MediaError as error:
            assert error.reason == "decode_truncated", length
        else:
            assert (found.width, found.height) == (37, 23), length
    assert header(data[:1000]).width == 37


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"BM" + bytes(30), "bmp"), (b"II*\0" + bytes(30), "tiff"), (b"MM\0*" + bytes(30), "tiff"), (b"\0\0\0\x1cftypavif", "avif"),
        (b"\0\0\0\x1cftypheic", "heif"), (b"\0\0\0\x1cftypmif1", "heif"), (b"\0\0\x01\0\x01\0", "ico"), (b"8BPS\0\x01", "psd"),
        (b"\xff\x0a\x00", "jxl"), (b"%!PS-Adobe-3.0 EPSF", "eps"), (b"<svg width='1'/>", "svg"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE svg><svg/>", "svg"), (b"SIMPLE  =  T", "fits"),
    ],
)  # fmt: skip
def test_other_picture_formats_are_named_and_not_allowed(data: bytes, name: str) -> None:
    assert sniff(data) == name
    with pytest.raises(MediaError, match="format_not_allowed"):
        header(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"<html>", b"<?xml version='1.0'?><rss/>", b"RIFF\0\0\0\0WAVE", b"GIF88a", bytes(64)]
)
def test_other_bytes_are_no_image(data: bytes) -> None:
    assert sniff(data) is None
    with pytest.raises(MediaError, match="not_an_image"):
        header(data)


def test_forged_sizes_cost_nothing() -> None:
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0, 0)
    tracemalloc.start()
    assert header(png) == Header("png", 2**31 - 1, 2**31 - 1, alpha=True)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_small_gif_canvas_does_not_hide_a_huge_frame() -> None:
    gif = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"\x2c" + struct.pack("<HHHHB", 0, 0, 60000, 60000, 0) + b"\x02\x00;"
    found = header(gif)
    assert (found.width, found.height) == (60000, 60000)


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\x01", b"\xff\xd8\xff\xe0\0\x02zz", b"\xff\xd8\xff\xda\0\x02"])
def test_jpegs_without_structure_are_damaged(data: bytes) -> None:
    with pytest.raises(MediaError, match="decode_failed"):
        header(data + bytes(20))


def test_zero_sizes_are_damaged() -> None:
    with pytest.raises(MediaError, match="decode_failed"):
        header(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 0, 5, 8, 6, 0, 0, 0, 0))


def test_random_damage_never_raises_anything_else() -> None:
    drawn = np.random.default_rng(1)
    for kind in FORMATS.values():
        data = encoded(kind)
        for _ in range(300):
            damaged = bytearray(data)
            for position in drawn.integers(0, min(len(data), 400), 4):
                damaged[position] = drawn.integers(0, 256)
            with contextlib.suppress(MediaError):
                header(bytes(damaged))
