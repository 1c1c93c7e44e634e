"""Images: checked before they are decoded, decoded no larger than needed, resized, encoded, described.

Nothing here does I/O. What is wrong with the bytes comes out as `MediaError`, whose `reason` is a row reason.
JPEGs are decoded at the smallest DCT scale (1/8, 1/4, 1/2, 1) that still holds the wanted size and interpolated from
there; every other format is decoded at full size and averaged over areas, and so are JPEGs with `decode: faithful`.
Decoding is strict: a file that ends early is an error.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from curate.media.blur import Box
from curate.media.exif import exif_json
from curate.media.header import Header, MediaError, header, sniff
from curate.media.perceptual import grey_entropy, phash, plain_share, sharpness
from curate.media.resize import Fit, Rgb, as_rgb, as_stored, extent_of, fit, frame, hide, quick_size, resize, scale, upright
from curate.media.settings import MAX_PIXELS, MAX_SIDE, ImageSettings

__all__ = [
    "Fit", "Header", "ImageSettings", "MediaError", "Rgb", "StoredImage",
    "check_limits", "check_pixels", "decode_rgb", "encode", "exif_json", "fit", "grey_entropy", "header", "phash", "plain_share",
    "prepare", "resize", "sharpness", "sniff",
]  # fmt: skip

CODEC_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error, cv2.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow, OpenCV and simplejpeg raise on damaged files."""


@dataclass(frozen=True)
class StoredImage:
    """An image ready to be stored: its bytes, extension and size in pixels, and what the original said."""

    data: bytes
    format: str
    width: int
    height: int
    original: Header
    exif: str | None


Look = Callable[[Rgb, Rgb], None]
"""Sees the upright picture as decoded and as it is to be stored; raises MediaError or an error of its own to refuse it."""


def prepare(data: bytes, settings: ImageSettings, boxes: tuple[Box, ...] = (), look: Look | None = None) -> StoredImage:
    """Checks, decodes, resizes, blurs and encodes one file as `settings` say. Raises MediaError, and what `look` raises.

    A picture with `boxes` is never stored as it came.
    """
    found = header(data)
    check_pixels(found, settings.max_pixels, settings.max_side)
    check_limits(found, len(data), settings)
    size = found.upright
    how = fit(*size, settings)
    if not boxes and _may_keep(found, how, settings):
        kept, extension = data, _extension(found.format)
        pixels = _decoded(data, found, None if look else (1, 1))  # damage must not pass, although the pixels are not needed
        if look:
            look(upright(pixels, found.orientation), upright(pixels, found.orientation))
    else:
        quick = settings.decode == "fast" and found.format == "jpeg"
        pixels = _decoded(data, found, quick_size(found, how.scaled) if quick else None)
        scaled = scale(pixels, as_stored(how.scaled, found.orientation), extent_of(pixels, found), quick)
        framed = frame(hide(upright(scaled, found.orientation), boxes, found.orientation), how)
        if look:
            look(upright(pixels, found.orientation), framed)
        kept, extension, size = encode(framed, settings), settings.format, how.framed
    return StoredImage(kept, extension, *size, found, exif_json(found.exif, settings.max_exif_bytes))


def check_limits(found: Header, size_bytes: int, settings: ImageSettings) -> None:
    """Raises MediaError (image_small, image_aspect, image_large) when the original is outside the limits that are set."""
    low, high = sorted(found.upright)
    if size_bytes < (settings.min_bytes or 0) or low < (settings.min_side or 0):
        raise MediaError("image_small", found)
    if settings.max_aspect is not None and high > low * settings.max_aspect:
        raise MediaError("image_aspect", found)
    if settings.max_area is not None and low * high > settings.max_area:
        raise MediaError("image_large", found)


def check_pixels(found: Header, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> None:
    """Raises MediaError(too_many_pixels) when the header announces more than the caps."""
    if found.width * found.height > max_pixels or max(found.width, found.height) > max_side:
        raise MediaError("too_many_pixels", found)


def _extension(name: str) -> str:
    return "jpg" if name == "jpeg" else name


def _may_keep(found: Header, how: Fit, settings: ImageSettings) -> bool:
    if settings.reencode != "when_needed":
        return settings.reencode == "never"
    plain = found.orientation == 1 and found.frames == 1 and not found.alpha and (found.format != "jpeg" or found.channels in (1, 3))
    return plain and _extension(found.format) == settings.format and found.upright == how.scaled == how.framed


def encode(pixels: Rgb, settings: ImageSettings) -> bytes:
    """Pixels as jpg (4:2:0), png or webp; no metadata, so equal pixels give equal bytes."""
    if settings.format == "jpg":
        return bytes(simplejpeg.encode_jpeg(pixels, quality=settings.quality, colorspace="RGB", colorsubsampling="420"))
    if settings.format == "png":
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, settings.png_compression]
    else:
        parameters = [cv2.IMWRITE_WEBP_QUALITY, settings.quality]
    done, encoded = cv2.imencode(f".{settings.format}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise MediaError("decode_failed")
    return encoded.tobytes()


def decode_rgb(data: bytes, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Rgb:
    """Upright pixels of the first frame, alpha blended on white.

    With `min_side`, a JPEG may come back smaller than it is, its shorter side still ≥ `min_side` pixels (or as
    stored when it has fewer). Raises MediaError.
    """
    found = header(data)
    check_pixels(found, max_pixels)
    if min_side is None:
        return _decode(data, found, None)
    width, height = found.upright
    scale = min(1.0, min_side / min(width, height))
    return _decode(data, found, (math.ceil(width * scale), math.ceil(height * scale)))


def _decode(data: bytes, found: Header, at_least: tuple[int, int] | None) -> Rgb:
    return upright(_decoded(data, found, at_least), found.orientation)


def _decoded(data: bytes, found: Header, at_least: tuple[int, int] | None) -> Rgb:
    """RGB as stored, not smaller than `at_least` (width, height after orientation) unless the file is."""
    try:
        return _decode_stored(data, found, at_least and as_stored(at_least, found.orientation))
    except MemoryError:
        raise MediaError("local_fault", found) from None
    except CODEC_ERRORS as error:
        raise MediaError(_damage(error, data, found), found) from None


def _decode_stored(data: bytes, found: Header, wanted: tuple[int, int] | None) -> Rgb:
    if found.format == "jpeg" and found.channels in (1, 3):
        width, height = wanted or (0, 0)
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", min_width=width, min_height=height))
        except ValueError as error:
            if "remature end" in str(error):
                raise
            # libjpeg also warns of harmless things, such as stray bytes between segments; Pillow tells them apart
    pixels = _decode_with_opencv(data) if _is_plain(data, found) else None
    return _decode_with_pillow(data, found, wanted) if pixels is None else pixels


def _is_plain(data: bytes, found: Header) -> bool:
    """Whether OpenCV gives the pixels that Pillow gives, in two thirds of the time: still, opaque, 8 bits, no palette."""
    if found.alpha or found.frames > 1:
        return False
    return found.format == "webp" or (found.format == "png" and data[24] == 8 and data[25] in (0, 2) and b"IEND" in data[-64:])


def _decode_with_opencv(data: bytes) -> Rgb | None:
    """RGB, or None for files that it refuses; what is wrong with them is Pillow's to say."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if pixels is None else as_rgb(pixels)


def _decode_with_pillow(data: bytes, found: Header, wanted: tuple[int, int] | None) -> Rgb:
    with Image.open(io.BytesIO(data), formats=[found.format]) as image:
        if image.width * image.height > found.width * found.height:  # a second header contradicts the one that was checked
            raise MediaError("too_many_pixels", found)
        if found.format == "jpeg" and wanted is not None:
            image.draft(None, wanted)
        image.load()
        return _flat_rgb(image)


def _flat_rgb(image: Image.Image) -> Rgb:
    """RGB of any Pillow mode: 16 bits cut to 8, palettes and CMYK expanded, alpha blended on white."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return as_rgb(np.repeat(grey[:, :, None], 3, axis=2))
    if image.mode == "I":
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return as_rgb(np.repeat(grey[:, :, None], 3, axis=2))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGB", layer.size, (255, 255, 255))
        canvas.paste(layer, mask=layer.getchannel("A"))
        return as_rgb(np.asarray(canvas))
    return as_rgb(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def _damage(error: BaseException, data: bytes, found: Header) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels"
    text = str(error).lower()
    told = "premature end" in text or "truncated" in text or isinstance(error, EOFError)
    return "decode_truncated" if told or _ends_early(data, found) else "decode_failed"


def _ends_early(data: bytes, found: Header) -> bool:
    if found.format == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return found.format == "png" and b"IEND" not in data[-4096:]
