"""What one body becomes: columns that describe it, and the image to store; no I/O, so that it can run in any process."""

from __future__ import annotations

import hashlib
import warnings

import cv2
from PIL import Image

from curate.media.image import ImageSettings, MediaError, StoredImage, prepare


def prepare_process() -> None:
    """One thread per image, every codec loaded, and no lines on the terminal about other people's broken metadata."""
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="PIL")
    Image.init()


def outcome(body: bytes, settings: ImageSettings) -> tuple[dict[str, object], bytes | None]:
    """Columns and stored bytes of one body; a pure function of both."""
    columns: dict[str, object] = {"original_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    try:
        stored = prepare(body, settings)
    except MediaError as error:
        columns["reason"] = error.reason
        if error.header:
            columns |= _original(error.header.format, *error.header.upright)
        return columns, None
    return columns | _original(stored.original.format, *stored.original.upright) | _kept(stored), stored.data


def _original(name: str, width: int, height: int) -> dict[str, object]:
    """Sizes fit 32 bits except those of forged headers, which are cut."""
    largest = 2**31 - 1
    return {"original_format": name, "original_width": min(width, largest), "original_height": min(height, largest)}


def _kept(stored: StoredImage) -> dict[str, object]:
    return {
        "exif": stored.exif,
        "width": stored.width,
        "height": stored.height,
        "format": stored.format,
        "image_bytes": len(stored.data),
        "image_sha256": hashlib.sha256(stored.data).hexdigest(),
    }
