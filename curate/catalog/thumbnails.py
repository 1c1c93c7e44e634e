"""Small pictures for the report, read out of part tars and written into the page as data: addresses."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from curate.catalog.gather import Sample
from curate.media.header import MediaError
from curate.media.image import ImageSettings, prepare
from curate.objects import read_span
from curate.store import Pool

SIDE_PIXELS = 160
VEILED_PIXELS = 6
_SHOWN = ImageSettings(resize_mode="keep_ratio_largest", size=SIDE_PIXELS, quality=80, reencode="always")
_VEILED = ImageSettings(resize_mode="keep_ratio_largest", size=VEILED_PIXELS, quality=60, reencode="always")


def thumbnails(pool: Pool, samples: Iterable[Sample], reveal: bool) -> dict[str, str]:
    """`sample_id` → data: address. Of veiled rows only six pixels a side leave the pool, unless `reveal`."""
    made: dict[str, str] = {}
    for sample in samples:
        if sample.sample_id not in made:
            address = thumbnail(pool, sample, reveal)
            if address is not None:
                made[sample.sample_id] = address
    return made


def thumbnail(pool: Pool, sample: Sample, reveal: bool) -> str | None:
    """One picture as a data: address; None when it cannot be read."""
    if sample.tar_file is None or sample.tar_offset is None or sample.tar_size is None:
        return None
    try:
        stored = read_span(pool.path / sample.tar_file, sample.tar_offset, sample.tar_size)
        image = miniature(stored, sample.veiled and not reveal)
    except (OSError, MediaError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def miniature(image: bytes, veiled: bool) -> bytes:
    """The JPEG that stands for an image on a page; equal bytes for equal images. Raises MediaError."""
    return prepare(image, _VEILED if veiled else _SHOWN).data
