"""What fault servers serve: pictures by seed, and files that are made to cost whoever reads them."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 400, height: int = 300, kind: str = "JPEG", **options: object) -> bytes:
    """A smooth random picture as file bytes; equal seeds, equal bytes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, kind, quality=85, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends after it announced its size."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0) + bytes(40)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(kind: bytes, data: bytes) -> bytes:
    """A small picture with one more chunk right after its header."""
    whole = picture(5, 80, 60, "PNG")
    return whole[:33] + _chunk(kind, data) + whole[33:]


@functools.cache
def zeros(size: int) -> bytes:
    """That many zero bytes, deflated to about a thousandth."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def png_bomb(side: int) -> bytes:
    """A whole, valid PNG of side x side black pixels in one bit each."""
    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


@functools.cache
def gif_frames(count: int) -> bytes:
    """An animation of `count` tiny frames."""
    stream = io.BytesIO()
    Image.new("1", (2, 2)).save(stream, "GIF")
    one = stream.getvalue()
    start = one.index(b"\x2c\0\0\0\0")
    return one[:start] + one[start:-1] * count + one[-1:]


def webp_bomb() -> bytes:
    """An extended WebP whose canvas has 16,777,216 pixels a side."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff" * 6 + bytes(64)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@functools.cache
def jpeg_scans(copies: int, side: int = 256) -> bytes:
    """A progressive JPEG that repeats its last scan `copies` times: few bytes, a pass over all coefficients each."""
    whole = picture(4, side, side, progressive=True)
    last = whole.rindex(b"\xff\xda")
    start = whole.rindex(b"\xff\xc4", 0, last)
    scan = whole[start : whole.rindex(b"\xff\xd9")]
    return whole[:-2] + scan * copies + b"\xff\xd9"


def _jpeg_with(marker: int, data: bytes) -> bytes:
    whole = picture(4, 80, 60)
    return whole[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + whole[2:]


def exif_bomb() -> bytes:
    """EXIF whose directories point at themselves, announce 65,535 entries and gigabytes of values."""
    entries = [(0x8769, 4, 1, 8), (0x010F, 2, 0xFFFFFFFF, 8), (0x8825, 4, 1, 8), (0x0112, 3, 1, 3)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return _jpeg_with(0xE1, b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0xFFFF) + table + struct.pack("<I", 8))


def archive() -> bytes:
    """A zip with one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("Evil.class", b"\xca\xfe\xba\xbe" + bytes(50))
    return stream.getvalue()


def cut(body: bytes, percent: int) -> bytes:
    """The first `percent` of a body."""
    return body[: len(body) * percent // 100]
