"""Decoding, resizing and encoding: sizes, colours, damage."""

from __future__ import annotations

import io
import json
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from curate.errors import REASONS
from curate.media.image import ImageSettings, MediaError, StoredImage, decode_rgb, header, prepare
from tests.media.test_header import exif


def photo(width: int = 480, height: int = 320, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def file_of(pixels: np.ndarray, kind: str = "JPEG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    image = image.convert(mode) if mode else image
    if kind == "GIF":
        image = image.quantize(method=Image.Quantize.FASTOCTREE)
    image.save(stream, kind, **({"quality": 92} | options))
    return stream.getvalue()


def stored(data: bytes, **settings: object) -> StoredImage:
    return prepare(data, ImageSettings.model_validate(settings))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


# mode, only_shrink, (width, height) in, (width, height) out; as img2dataset's Resizer does with size 256
SIZES = [
    ("no", True, (500, 333), (500, 333)),
    ("keep_ratio", True, (500, 333), (384, 256)),
    ("keep_ratio", True, (333, 500), (256, 384)),
    ("keep_ratio", True, (1001, 257), (997, 256)),
    ("keep_ratio", True, (200, 100), (200, 100)),
    ("keep_ratio", False, (200, 100), (512, 256)),
    ("keep_ratio", False, (5, 3), (427, 256)),
    ("keep_ratio_largest", True, (500, 333), (256, 170)),
    ("keep_ratio_largest", True, (1001, 257), (256, 66)),
    ("keep_ratio_largest", False, (5, 3), (256, 154)),
    ("keep_ratio_largest", True, (200, 100), (200, 100)),
    ("center_crop", True, (500, 333), (256, 256)),
    ("center_crop", True, (200, 100), (200, 100)),
    ("center_crop", True, (301, 256), (301, 256)),
    ("center_crop", False, (200, 100), (256, 256)),
    ("border", True, (500, 333), (256, 256)),
    ("border", True, (200, 100), (200, 100)),
    ("border", False, (200, 100), (256, 256)),
]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("mode", "only_shrink", "size", "wanted"), SIZES)
def test_modes_give_the_sizes_of_img2dataset(
    kind: str, mode: str, only_shrink: bool, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    image = stored(file_of(photo(*size), kind), resize_mode=mode, only_shrink=only_shrink)
    assert (image.width, image.height) == wanted
    assert Image.open(io.BytesIO(image.data)).size == wanted
    assert (image.original.width, image.original.height) == size


@pytest.mark.parametrize(("extension", "kind"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "GIF"])
def test_formats_out(extension: str, kind: str, source: str) -> None:
    data = file_of(photo(), source)
    image = stored(data, format=extension)
    assert image.format == extension and Image.open(io.BytesIO(image.data)).format == kind
    assert psnr(decode_rgb(image.data), np.asarray(Image.fromarray(photo()).resize((384, 256), Image.Resampling.BOX))) > 25
    assert image.data == stored(data, format=extension).data


def test_the_crop_is_the_middle_and_the_border_is_white() -> None:
    pixels = np.zeros((256, 301, 3), np.uint8)
    pixels[:, 22:278] = 200
    assert decode_rgb(stored(file_of(pixels, "PNG"), resize_mode="center_crop", only_shrink=False, format="png").data).min() == 200
    bordered = decode_rgb(
        stored(file_of(np.zeros((201, 256, 3), np.uint8), "PNG"), resize_mode="border", only_shrink=False, format="png").data
    )
    assert np.flatnonzero(bordered[:, 0, 0] == 0)[[0, -1]].tolist() == [27, 227] and bordered[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("size", [(960, 640), (1200, 900), (1600, 1067), (700, 640)])
def test_scaled_decoding_looks_like_full_decoding(size: tuple[int, int]) -> None:
    data = file_of(photo(*size), quality=85)
    fast, faithful = (decode_rgb(stored(data, decode=how, format="png").data) for how in ("fast", "faithful"))
    assert psnr(fast, faithful) > 37


def test_min_side_bounds_the_decoded_size_from_below() -> None:
    data = file_of(photo(1600, 1200))
    assert decode_rgb(data).shape == (1200, 1600, 3)
    height, width, _ = decode_rgb(data, min_side=224).shape
    assert 224 <= height <= 450 and abs(width / height - 4 / 3) < 0.01
    assert decode_rgb(file_of(photo(100, 80)), min_side=224).shape == (80, 100, 3)
    tall = file_of(photo(1600, 1200), exif=b"Exif\0\0" + exif(6))
    assert decode_rgb(tall, min_side=224).shape[1] < decode_rgb(tall, min_side=224).shape[0]


@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied_as_pillow_does(value: int) -> None:
    from PIL import ImageOps

    data = file_of(photo(), exif=b"Exif\0\0" + exif(value))
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = decode_rgb(data)
    assert found.shape == wanted.shape and psnr(found, wanted) > 45
    image = stored(data)
    assert (image.width < image.height) == (value >= 5)
    assert header(image.data).orientation == 1


def test_alpha_is_blended_on_white() -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:, 30:] = (255, 0, 0, 255)
    pixels[:, 15:30] = (0, 0, 0, 128)
    for kind in ("PNG", "WEBP"):
        found = decode_rgb(file_of(pixels, kind, lossless=True))
        assert found[20, 5].tolist() == [255, 255, 255] and found[20, 45].tolist() == [255, 0, 0] and abs(int(found[20, 20, 0]) - 127) <= 1


def test_odd_modes_come_out_as_rgb() -> None:
    grey16 = (np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16)
    found = decode_rgb(file_of(grey16, "PNG"))
    assert found.shape == (48, 64, 3) and np.array_equal(found[:, :, 0], (grey16 >> 8).astype(np.uint8))
    pixels = photo(64, 48)
    for kind, mode in [
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("PNG", "L"),
        ("PNG", "1"),
        ("PNG", "P"),
        ("PNG", "LA"),
        ("GIF", "P"),
        ("WEBP", "RGBA"),
    ]:
        found = decode_rgb(file_of(pixels, kind, mode))
        wanted = np.asarray(Image.open(io.BytesIO(file_of(pixels, kind, mode))).convert("RGB"))
        assert found.shape == (48, 64, 3) and found.dtype == np.uint8 and psnr(found, wanted) > 30, (kind, mode)
    assert stored(file_of(photo(1600, 1200), "JPEG", "CMYK")).width == 341


def test_transparent_palettes_are_blended() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    for kind in ("PNG", "GIF"):
        stream = io.BytesIO()
        image.save(stream, kind, transparency=0)
        assert decode_rgb(stream.getvalue())[0, 0].tolist() == [255, 255, 255]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (250, 100, 0)]
    for kind in ("GIF", "WEBP", "PNG"):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        assert decode_rgb(stream.getvalue())[0, 0, 0] >= 245
        assert stored(stream.getvalue(), resize_mode="no", format="webp", reencode="when_needed").data != stream.getvalue()


def test_bytes_that_fit_are_kept() -> None:
    fits = file_of(photo(384, 256))
    assert stored(fits).data == fits
    assert stored(fits, reencode="always").data != fits
    assert stored(fits, format="webp").data != fits
    assert stored(file_of(photo(384, 256), exif=b"Exif\0\0" + exif(3))).data != fits
    big = file_of(photo(900, 600), "PNG")
    kept = stored(big, reencode="never")
    assert (kept.data, kept.format, kept.width, kept.height) == (big, "png", 900, 600)
    square = file_of(photo(256, 256))
    assert stored(square, resize_mode="center_crop").data == square
    assert stored(fits, resize_mode="center_crop", only_shrink=False).width == 256


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("WEBP", "webp")])
def test_transparent_pictures_are_stored_on_white_unless_never(kind: str, extension: str) -> None:
    pixels = np.zeros((100, 200, 4), np.uint8)
    pixels[:, 100:] = (0, 0, 255, 255)
    data = file_of(pixels, kind, lossless=True)
    for reencode in ("when_needed", "always"):
        kept = Image.open(io.BytesIO(stored(data, format=extension, reencode=reencode, quality=100).data))
        assert kept.mode == "RGB" and np.abs(np.asarray(kept).astype(int)[50, 50] - 255).max() <= 3
    assert stored(data, format=extension, reencode="never").data == data
    opaque = file_of(photo(200, 100), kind, lossless=True)
    assert stored(opaque, format=extension).data == opaque


def test_quality_and_compression_are_those_asked_for() -> None:
    data = file_of(photo(640, 480), quality=98)
    for extension in ("jpg", "webp"):
        sizes = [len(stored(data, format=extension, quality=quality).data) for quality in (30, 60, 90)]
        assert sizes == sorted(sizes) and sizes[2] > 1.5 * sizes[0]
    png = [stored(data, format="png", png_compression=level) for level in (0, 9)]
    assert len(png[0].data) > 1.2 * len(png[1].data)
    assert np.array_equal(decode_rgb(png[0].data), decode_rgb(png[1].data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("reencode", ["never", "always"])
def test_files_that_end_early_are_refused(kind: str, share: float, reencode: str) -> None:
    data = file_of(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8), kind)
    with pytest.raises(MediaError) as caught:
        stored(data[: int(len(data) * share)], reencode=reencode)
    assert caught.value.reason == "decode_truncated"


def test_harmless_stray_bytes_are_forgiven() -> None:
    data = file_of(photo())
    end = data.rindex(b"\xff\xd9")
    assert decode_rgb(data[:end] + b"\0\0\0" + data[end:]).shape == (320, 480, 3)
    assert decode_rgb(data + b"<!-- trailing -->").shape == (320, 480, 3)


def test_damage_ends_in_a_reason() -> None:
    drawn = np.random.default_rng(2)
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        data = file_of(photo(90, 60), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for position in drawn.integers(8, len(data), 6):
                damaged[position] = drawn.integers(0, 256)
            try:
                decode_rgb(bytes(damaged))
            except MediaError as error:
                assert error.reason in REASONS


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    press = zlib.compressobj(9)
    body = b"".join(press.compress(bytes(1 + width // 8)) for _ in range(height)) + press.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_before_they_are_decoded() -> None:
    data = bomb(24_000, 16_000)  # 384 MP in 47 kB
    assert len(data) < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        with pytest.raises(MediaError) as caught:
            prepare(data, ImageSettings())
        assert caught.value.reason == "too_many_pixels" and caught.value.header is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kB
    with pytest.raises(MediaError, match="too_many_pixels"):
        decode_rgb(file_of(photo(100, 100)), max_pixels=9_999)
    with pytest.raises(MediaError, match="too_many_pixels"):
        stored(file_of(photo(300, 20)), max_side=299)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 20_000])  # above curate's cap, and above the size at which Pillow itself refuses
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_second_header_hides_no_bomb(kind: str, side: int) -> None:
    data = file_of(photo(64, 64), kind)
    if kind == "JPEG":
        start = data.index(b"\xff\xc0")
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        second = data[start : start + 5] + struct.pack(">HH", side, side) + data[start + 9 : end]
    else:
        end = 33
        second = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match="too_many_pixels"):
        stored(data[:end] + second + data[end:])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kB


def test_exif_is_json_of_bounded_size() -> None:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x0131], tags[0x011A] = "Maker\0\x07", "Model", "S" * 5000, 72.5
    data = file_of(photo(), exif=tags.tobytes())
    text = stored(data).exif
    assert text is not None and json.loads(text) == {"Make": "Maker", "Model": "Model", "Software": "S" * 200, "XResolution": 72.5}
    short = stored(data, max_exif_bytes=40).exif
    assert short is not None and len(short) <= 40 and json.loads(short)["Make"] == "Maker"
    assert stored(file_of(photo())).exif is None
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        assert stored(file_of(photo(), exif=b"Exif\0\0" + b"II*\0" + b"\xff" * 40)).exif is None
