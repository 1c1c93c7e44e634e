"""Images: checked before they are decoded, decoded no larger than needed, resized, encoded, described.

Nothing here does I/O. What is wrong with the bytes comes out as `MediaError`, whose `reason` is a row reason.
JPEGs are decoded at the smallest DCT scale (n/8) that still holds the wanted size, the rest is done by area
averaging; every other format is decoded at full size. Decoding is strict: a file that ends early is an error.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image
from pydantic import Field

from curate.media.blur import Box, blur, upright_boxes
from curate.media.header import Header, MediaError, header, sniff
from curate.media.perceptual import grey_entropy, phash
from curate.settings import Settings

__all__ = [
    "Fit", "Header", "ImageSettings", "MediaError", "Rgb", "StoredImage",
    "check_limits", "check_pixels", "decode_rgb", "encode", "exif_json", "fit", "grey_entropy", "header", "phash", "prepare",
    "resize", "sniff",
]  # fmt: skip

Rgb = npt.NDArray[np.uint8]
"""Pixels, shape (height, width, 3), red first."""

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
_FLOAT_PIXELS = 1 << 20  # larger pictures would need much memory as floats
CODEC_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error, cv2.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow, OpenCV and simplejpeg raise on damaged files."""


class ImageSettings(Settings):
    """How a fetched image is stored; the resize modes mean what they mean in img2dataset.

    no: size as it is · keep_ratio: the shorter side becomes `size` · keep_ratio_largest: the longer side becomes
    `size` · center_crop: keep_ratio, then the middle `size` x `size` · border: keep_ratio_largest, then white up to
    `size` x `size`. With `only_shrink`, smaller images stay as they are (img2dataset: resize_only_if_bigger).
    """

    resize_mode: Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"] = "keep_ratio"
    size: int = Field(default=256, ge=1, le=MAX_SIDE)
    only_shrink: bool = True
    format: Literal["jpg", "png", "webp"] = "jpg"
    quality: int = Field(default=95, ge=1, le=100)
    png_compression: int = Field(default=6, ge=0, le=9)
    reencode: Literal["never", "when_needed", "always"] = "when_needed"
    decode: Literal["fast", "faithful"] = "fast"
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_side: int = Field(default=MAX_SIDE, ge=1)
    max_exif_bytes: int = Field(default=4096, ge=2)

    # what is not worth keeping, judged by the header alone; null is no limit, and a policy may still decide later
    min_bytes: int | None = Field(default=None, ge=1, description="smallest file; below it image_small")
    min_side: int | None = Field(default=None, ge=1, description="shorter side of the original in pixels; below it image_small")
    max_aspect: float | None = Field(default=None, ge=1, description="longer side over shorter side; above it image_aspect")
    max_area: int | None = Field(default=None, ge=1, description="width times height of the original; above it image_large")


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


@dataclass(frozen=True)
class Fit:
    """How an image is made to fit: scaled to `scaled`, then cropped or bordered to `framed`; (width, height) in pixels."""

    scaled: tuple[int, int]
    framed: tuple[int, int]


def prepare(data: bytes, settings: ImageSettings, boxes: tuple[Box, ...] = (), look: Look | None = None) -> StoredImage:
    """Checks, decodes, resizes, blurs and encodes one file as `settings` say. Raises MediaError, and what `look` raises.

    A picture with `boxes` is never stored as it came. Boxes lie on the picture as stored in the file or, for lists do
    not say, as shown: with an EXIF orientation both readings are blurred.
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
            look(_upright(pixels, found.orientation), _upright(pixels, found.orientation))
    else:
        pixels = _decoded(data, found, how.scaled if settings.decode == "fast" else None)
        scaled = _upright(_scaled(pixels, _as_stored(how.scaled, found.orientation), _extent(pixels, found)), found.orientation)
        framed = _framed(_blurred(scaled, boxes, found.orientation), how)
        if look:
            look(_upright(pixels, found.orientation), framed)
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
    plain = found.orientation == 1 and found.frames == 1 and (found.format != "jpeg" or found.channels in (1, 3))
    return plain and _extension(found.format) == settings.format and found.upright == how.scaled == how.framed


def fit(width: int, height: int, settings: ImageSettings) -> Fit:
    """What the resize mode makes of an upright image of this size."""
    mode, size = settings.resize_mode, settings.size
    side = min(width, height) if mode in ("keep_ratio", "center_crop") else max(width, height)
    if mode == "no" or (settings.only_shrink and side <= size):
        return Fit((width, height), (width, height))
    scaled = (max(1, round(width * size / side)), max(1, round(height * size / side)))
    return Fit(scaled, (size, size) if mode in ("center_crop", "border") else scaled)


def resize(pixels: Rgb, how: Fit) -> Rgb:
    """Scales by area averaging down or Lanczos up; then takes the middle, or puts white around."""
    return _framed(_scaled(pixels, how.scaled, (pixels.shape[1], pixels.shape[0])), how)


def _scaled(pixels: Rgb, size: tuple[int, int], extent: tuple[float, float]) -> Rgb:
    """`extent` is how much of the pixels' (width, height) the picture fills, from the upper left corner."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if size[0] <= extent[0] and size[1] <= extent[1]:
        return _averaged(pixels, size, extent)
    return _as_rgb(cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4))


def _averaged(pixels: Rgb, size: tuple[int, int], extent: tuple[float, float]) -> Rgb:
    """Area averaging. OpenCV is a fifth faster in float32, with the same result unless both ratios are whole numbers."""
    height, width = pixels.shape[:2]
    whole = width % size[0] == 0 and height % size[1] == 0 and (width, height) == extent
    if whole or width * height > _FLOAT_PIXELS:
        return _cut(cv2.resize(pixels, None, None, size[0] / extent[0], size[1] / extent[1], cv2.INTER_AREA), size)
    averaged = cv2.resize(pixels.astype(np.float32), None, None, size[0] / extent[0], size[1] / extent[1], cv2.INTER_AREA)
    return _cut(cv2.convertScaleAbs(averaged), size)


def _cut(array: npt.NDArray[np.generic], size: tuple[int, int]) -> Rgb:
    return _as_rgb(array[: size[1], : size[0]])


def _extent(pixels: Rgb, found: Header) -> tuple[float, float]:
    """How much of a decoded file's (width, height) is picture: JPEGs scaled by n/8 end in a pixel that is so only in part."""
    height, width = pixels.shape[:2]
    eighths = min(8, 8 * width // found.width, 8 * height // found.height)
    return min(width, found.width * eighths / 8), min(height, found.height * eighths / 8)


def _blurred(pixels: Rgb, boxes: tuple[Box, ...], orientation: int) -> Rgb:
    if not boxes:
        return pixels
    return blur(pixels, boxes if orientation == 1 else (*boxes, *upright_boxes(boxes, orientation)))


def _framed(pixels: Rgb, how: Fit) -> Rgb:
    left, top = (how.scaled[0] - how.framed[0]) // 2, (how.scaled[1] - how.framed[1]) // 2
    if left < 0 or top < 0:
        return _bordered(pixels, how.framed)
    return np.ascontiguousarray(pixels[top : top + how.framed[1], left : left + how.framed[0]])


def _bordered(pixels: Rgb, size: tuple[int, int]) -> Rgb:
    height, width = pixels.shape[:2]
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


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
    return _upright(_decoded(data, found, at_least), found.orientation)


def _decoded(data: bytes, found: Header, at_least: tuple[int, int] | None) -> Rgb:
    """RGB as stored, not smaller than `at_least` (width, height after orientation) unless the file is."""
    try:
        return _decode_stored(data, found, at_least and _as_stored(at_least, found.orientation))
    except MemoryError:
        raise MediaError("local_fault", found) from None
    except CODEC_ERRORS as error:
        raise MediaError(_damage(error, data, found), found) from None


def _as_stored(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Size in the file of what is (width, height) when upright."""
    return (size[1], size[0]) if orientation >= 5 else size


def _decode_stored(data: bytes, found: Header, wanted: tuple[int, int] | None) -> Rgb:
    if found.format == "jpeg" and wanted is not None:
        wanted = _scaled_jpeg(found, wanted)
    if found.format == "jpeg" and found.channels in (1, 3):
        width, height = wanted or (0, 0)
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", min_width=width, min_height=height))
        except ValueError as error:
            if "remature end" in str(error):
                raise
            # libjpeg also warns of harmless things, such as stray bytes between segments; Pillow tells them apart
    return _decode_with_pillow(data, found, wanted)


def _scaled_jpeg(found: Header, wanted: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the file at the smallest scale n/8 at which no part of a pixel is missing from `wanted`."""
    width, height = found.width, found.height
    eighths = next((n for n in range(1, 8) if width * n >= 8 * wanted[0] and height * n >= 8 * wanted[1]), 8)
    return -(-width * eighths // 8), -(-height * eighths // 8)


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
        return _as_rgb(np.repeat(grey[:, :, None], 3, axis=2))
    if image.mode == "I":
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return _as_rgb(np.repeat(grey[:, :, None], 3, axis=2))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGB", layer.size, (255, 255, 255))
        canvas.paste(layer, mask=layer.getchannel("A"))
        return _as_rgb(np.asarray(canvas))
    return _as_rgb(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def _as_rgb(array: npt.NDArray[np.generic]) -> Rgb:
    return np.ascontiguousarray(array, dtype=np.uint8)


def _upright(pixels: Rgb, orientation: int) -> Rgb:
    """Applies EXIF orientation (CIPA DC-008, tag 0x0112): the stored picture becomes the one that was seen."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


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


def exif_json(raw: bytes, max_bytes: int = 4096) -> str | None:
    """Main EXIF tags as JSON of at most `max_bytes`; numbers and text (first 200 characters) only; None without any."""
    if not raw:
        return None
    tags = Image.Exif()
    try:
        tags.load(b"Exif\0\0" + raw)
        values = {ExifTags.TAGS.get(tag, str(tag)): _plain_value(value) for tag, value in tags.items()}
    except CODEC_ERRORS:
        return None
    kept: dict[str, object] = {}
    size = 2
    for name in sorted(name for name, value in values.items() if value is not None):
        size += len(json.dumps({name: values[name]})) + 1
        if size <= max_bytes:
            kept[name] = values[name]
    return json.dumps(kept, sort_keys=True) if kept else None


def _plain_value(value: object) -> str | int | float | None:
    if isinstance(value, str):
        return "".join(c for c in value[:200] if c.isprintable()).strip() or None
    if isinstance(value, bool | bytes | tuple | dict):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]  # Pillow's rationals
    except (TypeError, ValueError, ArithmeticError):
        return None
    return round(number, 6) if math.isfinite(number) else None
