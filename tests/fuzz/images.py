"""Damaged images by number: a small file of each kind, mutated as its number says; and what must hold for every one."""

from __future__ import annotations

import functools
import hashlib
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from curate.errors import REASONS
from curate.fetch.codec import outcome, prepare_process
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import EMPTY, Wish
from curate.media.header import header
from curate.media.image import ImageSettings, MediaError, decode_rgb, exif_json

CRASHERS = Path(__file__).parent / "crashers"
SETTINGS = tuple(
    FetchSettings(image=ImageSettings(resize_mode=mode, format=kind, reencode=reencode, decode=decode, size=size, only_shrink=shrink))
    for mode, kind, reencode, decode, size, shrink in (
        ("keep_ratio", "jpg", "when_needed", "fast", 48, True),
        ("no", "jpg", "when_needed", "fast", 256, True),
        ("keep_ratio_largest", "webp", "when_needed", "fast", 32, True),
        ("center_crop", "jpg", "always", "faithful", 64, False),
        ("border", "png", "when_needed", "faithful", 64, True),
        ("no", "jpg", "never", "fast", 256, True),
        ("no", "png", "when_needed", "fast", 256, True),
        ("no", "webp", "when_needed", "fast", 256, True),
    )
)
WISHES = (
    EMPTY, EMPTY, EMPTY, Wish(boxes="[[0.1, 0.2, 0.4, 0.9], [-0.3, 0, 1.5, 0.1]]"), Wish(boxes="[[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]]"),
    Wish(sha256="0" * 64, phash="0123456789abcdef"), Wish(md5="f" * 32, pdq="0f" * 32), Wish(boxes="[[1e308, 0, 1, 1]]"), Wish(boxes="{"),
)  # fmt: skip
_LENGTHS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# -- what must hold


def case(number: int) -> None:
    """One mutated image through the codec; raises when anything but columns and a reason comes of it."""
    examine(mutated(number), WISHES[number % len(WISHES)], SETTINGS[number % len(SETTINGS)])


def crasher(number: int) -> None:
    """One kept file, which once was a finding, under all settings."""
    data = crashers()[number].read_bytes()
    for settings in SETTINGS:
        for wish in WISHES[2:]:
            examine(data, wish, settings)


def crashers() -> list[Path]:
    """The kept files, by name."""
    return sorted(path for path in CRASHERS.iterdir() if path.suffix == ".bin")


def examine(data: bytes, wish: Wish, settings: FetchSettings) -> None:
    """Holds one file, and what a list said of it, against the codec's promises."""
    prepare_process()
    columns, image = outcome(data, wish, settings)
    assert columns["sha256"] == hashlib.sha256(data).hexdigest()
    assert (image is None) == (columns.get("reason") in REASONS), columns
    assert columns.get("reason") not in ("local_fault", "decoder_crashed"), columns
    if image is not None:
        stored = header(image)
        assert stored.upright == (columns["width"], columns["height"]) and stored.format.startswith(str(columns["format"])[:2]), columns
        assert image == data or decode_rgb(image).shape[1::-1] == stored.upright
    for size in (64, len(data) // 2):  # what a client may look at before it has read all
        try:
            exif_json(header(data[:size]).exif)
        except MediaError as error:
            assert error.reason in REASONS


# -- seeds


def _picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width * height)
    coarse = Image.fromarray(draw.integers(0, 255, (5, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + draw.integers(-20, 20, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E], tags[0x011A] = orientation, "a description", 72.5
    return tags.tobytes()


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Small well-formed files: of every format, colour type, compression and animation that our decoders tell apart."""
    rgb, tall, grey = _picture(96, 64), _picture(40, 90), _picture(64, 64).convert("L")
    alpha = rgb.copy()
    alpha.putalpha(_picture(96, 64).convert("L"))
    palette, frames = rgb.quantize(32), [_picture(48, 32), _picture(32, 48).resize((48, 32))]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 50}
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    return (
        _saved(rgb, "JPEG", quality=85),
        _saved(tall, "JPEG", quality=95, subsampling=0, exif=_exif(6)),
        _saved(rgb, "JPEG", progressive=True, icc_profile=bytes(range(256)) * 4, comment=b"a comment"),
        _saved(grey, "JPEG", restart_marker_blocks=4),
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgb, "PNG"),
        _saved(alpha, "PNG", exif=_exif(3)),
        _saved(palette, "PNG", transparency=3),
        _saved(grey.convert("1"), "PNG"),
        _saved(deep, "PNG"),
        _saved(grey.convert("LA"), "PNG"),
        _saved(frames[0], "PNG", **moving),
        _saved(rgb, "WEBP", quality=80),
        _saved(rgb, "WEBP", lossless=True, exif=_exif(8)),
        _saved(alpha, "WEBP", quality=70),
        _saved(frames[0], "WEBP", **moving),
        _saved(palette, "GIF"),
        _saved(frames[0].quantize(16), "GIF", save_all=True, append_images=[frames[1].quantize(16)], transparency=1, disposal=2),
        _saved(rgb, "BMP"),
        _saved(rgb, "TIFF"),
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<html><body>gone</body></html>",
        b"",
    )


# -- mutations


def mutated(number: int) -> bytes:
    """The file of this number; equal numbers, equal bytes wherever Pillow saves its seeds alike."""
    draw = random.Random(number)
    data = bytearray(draw.choice(seeds()))
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5))):
        data = draw.choice(_MUTATIONS)(data, draw)
    if data[:4] == b"\x89PNG" and draw.random() < 0.7:
        _right_checksums(data)  # else most damage would end at the first checksum
    return bytes(data)


def _flip(data: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def _flip_early(data: bytearray, draw: random.Random) -> bytearray:
    """Headers hold the interesting bytes."""
    for _ in range(draw.choice((1, 2, 4))):
        if data:
            data[draw.randrange(min(len(data), 128))] = draw.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, draw.randrange(256)))
    return data


def _cut(data: bytearray, draw: random.Random) -> bytearray:
    return data[: draw.randrange(len(data) + 1)]


def _splice(data: bytearray, draw: random.Random) -> bytearray:
    other = draw.choice(seeds())
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _insert(data: bytearray, draw: random.Random) -> bytearray:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice((1, 4, 100, 5000))) + data[at:]


def _repeat(data: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.choice((4, 16, 200, 4000))]
    return data[:start] + piece * draw.choice((2, 3, 20)) + data[start + len(piece) :]


def _number(data: bytearray, draw: random.Random) -> bytearray:
    """A telling number of 2, 3 or 4 bytes anywhere."""
    width, order = draw.choice((2, 2, 3, 4, 4)), draw.choice(("big", "little"))
    if len(data) >= width:
        at = draw.randrange(len(data) - width + 1)
        data[at : at + width] = (draw.choice(_LENGTHS) & (1 << 8 * width) - 1).to_bytes(width, order)  # type: ignore[arg-type]
    return data


def _segment(data: bytearray, draw: random.Random) -> bytearray:
    """Removes, repeats, moves or lies about one segment of the container."""
    found = segments(data)
    if len(found) < 2:
        return _flip(data, draw)
    start, end, length_at, width, order = draw.choice(found)
    piece, how = data[start:end], draw.randrange(5)
    if how == 0:
        return data[:start] + data[end:]
    if how == 1:
        return data[:end] + piece * draw.choice((1, 2, 50)) + data[end:]
    if how == 2:
        at = draw.choice(found)[0]
        return data[:at] + piece + data[at:]
    length = draw.choice(_LENGTHS) if how == 3 else int.from_bytes(data[length_at : length_at + width], order) + draw.choice((-2, -1, 1, 2))
    data[length_at : length_at + width] = (length & (1 << 8 * width) - 1).to_bytes(width, order)
    return data


def _dimensions(data: bytearray, draw: random.Random) -> bytearray:
    """Another width or height in the header of a JPEG, PNG, GIF or WebP."""
    place = {b"\x89P": (16, 4, "big"), b"GI": (6, 2, "little"), b"RI": (26, 2, "little")}.get(bytes(data[:2]))
    if bytes(data[:2]) == b"\xff\xd8":
        frames = [start for start, *_ in segments(data) if data[start + 1] in (0xC0, 0xC1, 0xC2)]
        place = (frames[0] + 5, 2, "big") if frames else None
    if place is None:
        return _number(data, draw)
    at, width, order = place
    size = draw.choice((*_LENGTHS, draw.randrange(1 << 14), draw.randrange(1 << 14)))
    at += draw.choice((0, width))
    data[at : at + width] = (size & (1 << 8 * width) - 1).to_bytes(width, order)  # type: ignore[arg-type]
    return data


_MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip, _flip, _flip_early, _cut, _splice, _insert, _repeat, _number, _number, _segment, _segment, _segment, _dimensions,
)  # fmt: skip


def segments(data: bytearray) -> list[tuple[int, int, int, int, str]]:
    """Start, end, and where, how wide and in which byte order the length stands, of each segment of a container."""
    if data[:2] == b"\xff\xd8":
        return _jpeg_segments(data)
    if data[:4] == b"\x89PNG":
        return _chunks(data, 8, 0, 12, ">I", "big")
    return _chunks(data, 12, 4, 8, "<I", "little") if data[:4] == b"RIFF" else []


def _jpeg_segments(data: bytearray) -> list[tuple[int, int, int, int, str]]:
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((at, min(len(data), at + 2 + length), at + 2, 2, "big"))
        if data[at + 1] == 0xDA:
            break
        at += 2 + length
    return found


def _chunks(data: bytearray, at: int, length_at: int, around: int, code: str, order: str) -> list[tuple[int, int, int, int, str]]:
    found = []
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(code, data, at + length_at)
        length += length & 1 if order == "little" else 0
        found.append((at, min(len(data), at + around + length), at + length_at, 4, order))
        at += around + length
    return found


def _right_checksums(data: bytearray) -> None:
    for start, end, *_ in segments(data):
        if end - start >= 12:
            data[end - 4 : end] = struct.pack(">I", zlib.crc32(bytes(data[start + 4 : end - 4])))
