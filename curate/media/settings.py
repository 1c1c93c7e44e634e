"""How images are stored; every default stands here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.settings import Settings

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384


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
    max_exif_bytes: int = Field(default=4096, ge=2, le=32 << 10)

    # what is not worth keeping, judged by the header alone; null is no limit, and a policy may still decide later
    min_bytes: int | None = Field(default=None, ge=1, description="smallest file; below it image_small")
    min_side: int | None = Field(default=None, ge=1, description="shorter side of the original in pixels; below it image_small")
    max_aspect: float | None = Field(default=None, ge=1, description="longer side over shorter side; above it image_aspect")
    max_area: int | None = Field(default=None, ge=1, description="width times height of the original; above it image_large")
