"""What an image file says about itself, read from its first bytes without allocating a pixel.

Covers JPEG (ITU-T T.81), PNG (W3C PNG 3rd edition, with APNG), GIF89a and WebP (RFC 9649); knows the signatures of
other picture formats only in order to say `format_not_allowed` instead of `not_an_image`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ALLOWED = ("jpeg", "png", "webp", "gif")
EXIF_MAX_BYTES = 64 << 10
_ORIENTATION_TAG = 0x0112
_BASELINE_TO_LOSSLESS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: C4 is DHT, C8 JPG, CC DAC
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


class MediaError(Exception):
    """The bytes cannot be used; `reason` is one of `curate.errors.REASONS`, `header` what was learnt before."""

    def __init__(self, reason: str, header: Header | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.header = header


@dataclass(frozen=True)
class Header:
    """Format and size as stored (before orientation), in pixels.

    `frames` is exact for still images, PNG and 2 ("several") for animated GIF and WebP, whose count would need the
    whole file; `channels` counts JPEG components and is 0 elsewhere; `exif` is the raw TIFF block, cut at 64 KiB; `alpha`
    says that a PNG or WebP may be transparent.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1
    channels: int = 0
    exif: bytes = b""
    alpha: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) in pixels after the EXIF orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def sniff(data: bytes) -> str | None:
    """Format by signature: jpeg, png, webp, gif, or another picture format's name; None when it is no picture."""
    for signature, offset, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature and (name != "webp" or data[:4] == b"RIFF"):
            return name
    return "svg" if _is_svg(data) else None


_SIGNATURES = (
    (b"\xff\xd8\xff", 0, "jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"WEBP", 8, "webp"),
    (b"GIF87a", 0, "gif"),
    (b"GIF89a", 0, "gif"),
    (b"ftypavif", 4, "avif"),
    (b"ftypavis", 4, "avif"),
    (b"ftyphei", 4, "heif"),
    (b"ftyphev", 4, "heif"),
    (b"ftypmif1", 4, "heif"),
    (b"ftypmsf1", 4, "heif"),
    (b"BM", 0, "bmp"),
    (b"II*\x00", 0, "tiff"),
    (b"MM\x00*", 0, "tiff"),
    (b"II+\x00", 0, "tiff"),
    (b"MM\x00+", 0, "tiff"),
    (b"\x00\x00\x01\x00", 0, "ico"),
    (b"\x00\x00\x02\x00", 0, "ico"),
    (b"8BPS", 0, "psd"),
    (b"\x00\x00\x00\x0cjP  ", 0, "jpeg2000"),
    (b"\xff\x4f\xff\x51", 0, "jpeg2000"),
    (b"\x00\x00\x00\x0cJXL ", 0, "jxl"),
    (b"\xff\x0a", 0, "jxl"),
    (b"%!PS", 0, "eps"),
    (b"\xc5\xd0\xd3\xc6", 0, "eps"),
    (b"\x76\x2f\x31\x01", 0, "openexr"),
    (b"\xd7\xcd\xc6\x9a", 0, "wmf"),
    (b"P4\n", 0, "pnm"),
    (b"P5\n", 0, "pnm"),
    (b"P6\n", 0, "pnm"),
    (b"qoif", 0, "qoi"),
    (b"SIMPLE  =", 0, "fits"),
)


def _is_svg(data: bytes) -> bool:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in start)


def header(data: bytes) -> Header:
    """Header of an allowed format; `data` may be just the file's beginning.

    Raises MediaError: not_an_image, format_not_allowed, decode_truncated (ends before its size is told) or
    decode_failed (a size of zero, or no structure).
    """
    name = sniff(data)
    if name is None:
        raise MediaError("not_an_image")
    if name not in ALLOWED:
        raise MediaError("format_not_allowed")
    try:
        found = _READERS[name](data)
    except (struct.error, IndexError):
        raise MediaError("decode_truncated") from None
    if found.width < 1 or found.height < 1:
        raise MediaError("decode_failed", found)
    return found


def _jpeg(data: bytes) -> Header:
    position, exif = 2, b""
    while True:
        if data[position] != 0xFF:
            raise MediaError("decode_failed")
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:  # fill byte, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker in _BASELINE_TO_LOSSLESS:
            _, height, width, channels = struct.unpack_from(">BHHB", data, body)
            return Header("jpeg", width, height, orientation(exif), 1, channels, exif)
        if marker in (0xD9, 0xDA) or length < 2:
            raise MediaError("decode_failed")
        if marker == 0xE1 and not exif and data[body : body + 6] == b"Exif\0\0":
            exif = data[body + 6 : position + 2 + length][:EXIF_MAX_BYTES]
        position += 2 + length


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise MediaError("decode_failed" if len(data) >= 16 else "decode_truncated")
    width, height = struct.unpack_from(">II", data, 16)
    frames, exif, position, alpha = 1, b"", 8, data[25] in (4, 6)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"acTL" and length >= 8 and position + 16 <= len(data):
            frames = max(1, struct.unpack_from(">I", data, position + 8)[0])
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            exif = data[position + 8 : position + 8 + length][:EXIF_MAX_BYTES]
        elif kind == b"IEND":
            break
        position += 12 + length
    return Header("png", width, height, orientation(exif), frames, 0, exif, alpha)


def _gif(data: bytes) -> Header:
    """The canvas grows to hold its first frame, as decoders do: a small canvas must not hide a huge frame."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_bytes(flags)
    first = _next_gif_frame(data, position)
    if first is None:
        raise MediaError("decode_truncated")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, first + 1)
    after = _skip_gif_blocks(data, first + 11 + _palette_bytes(flags))
    frames = 2 if after is not None and _next_gif_frame(data, after) is not None else 1
    return Header("gif", max(width, left + frame_width), max(height, top + frame_height), 1, frames)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _next_gif_frame(data: bytes, position: int | None) -> int | None:
    """Position of the next image descriptor, or None when the file (or what we have of it) ends before one."""
    while position is not None and position < len(data) and data[position] == 0x21:
        position = _skip_gif_blocks(data, position + 2)
    return position if position is not None and data[position : position + 1] == b"\x2c" else None


def _skip_gif_blocks(data: bytes, position: int) -> int | None:
    while position < len(data):
        size = data[position]
        position += size + 1
        if not size:
            return position
    return None


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if kind != b"VP8X":
        raise MediaError("decode_failed" if len(data) >= 16 else "decode_truncated")
    flags = data[20]
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    if len(data) < 30:
        raise MediaError("decode_truncated")
    exif = _riff_chunk(data, b"EXIF").removeprefix(b"Exif\0\0") if flags & 0x08 else b""
    return Header("webp", width, height, orientation(exif), 2 if flags & 0x02 else 1, 0, exif, bool(flags & 0x10))


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == wanted:
            return data[position + 8 : position + 8 + length][:EXIF_MAX_BYTES]
        position += 8 + length + (length & 1)
    return b""


_READERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp}


def orientation(exif: bytes) -> int:
    """Orientation tag (1 to 8) of a raw TIFF block; 1 when there is none or it makes no sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(min(count, 512)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
