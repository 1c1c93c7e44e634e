"""What one body becomes: columns that describe it, and the image to store; no I/O, so that it can run in any process.

(The user's block lists are read once per process, at the first body.)
"""

from __future__ import annotations

import hashlib
import warnings

import cv2
from PIL import Image

from curate.fetch import blocklist
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish
from curate.media.blur import BadBoxes, Box, parse_boxes
from curate.media.image import ImageSettings, MediaError, Rgb, StoredImage, check_limits, check_pixels, header, phash, prepare
from curate.media.pdq import MATCH_BITS, distance_bits, pdq

DRIFT_PHASH_BITS = 10
"""Most of the 64 bits of a perceptual hash by which a re-encoded or resized copy differs; strangers differ by about 32."""

Columns = dict[str, object]


def prepare_process() -> None:
    """One thread per image, every codec loaded, and no lines on the terminal about other people's broken metadata."""
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="PIL")
    Image.init()


class _Blocked(Exception):
    def __init__(self, hit: blocklist.Hit) -> None:
        super().__init__(hit.signal)
        self.columns: Columns = {"reason": "blocklisted", "signal": hit.signal, "signal_value": hit.value}


def outcome(body: bytes, wish: Wish, settings: FetchSettings) -> tuple[Columns, bytes | None]:
    """Columns and stored bytes of one body; a pure function of body, wish, settings and the lists that these name.

    What is on a block list keeps only its hashes, list and line; what was refused for its hash is described, not stored.
    """
    lists = blocklist.load(settings.blocklists)
    digest = hashlib.sha256(body)
    md5 = hashlib.md5(body, usedforsecurity=False) if wish.promised_md5 or lists.needs_md5 else None
    columns: Columns = {"original_bytes": len(body), "sha256": digest.hexdigest()}
    if md5 is not None and wish.promised_md5:
        columns["md5"] = md5.hexdigest()
    try:
        hit = lists.of_body(digest.digest(), md5.digest() if md5 else None)
        if hit:
            raise _Blocked(hit)
        stored = _judged(body, wish, settings, lists, columns)
    except _Blocked as blocked:
        return columns | blocked.columns, None
    except MediaError as error:
        columns["reason"] = error.reason
        if error.header:
            columns |= _original(error.header.format, *error.header.upright)
        return columns, None
    return columns | _original(stored.original.format, *stored.original.upright) | _kept(stored), stored.data


def _judged(body: bytes, wish: Wish, settings: FetchSettings, lists: blocklist.BlockLists, columns: Columns) -> StoredImage:
    """The image to store; sets `hash_drift` and `blurred` in `columns`. Raises MediaError or _Blocked."""
    equal = _keeps_promise(wish, columns)
    if equal is not None:
        columns["hash_drift"] = not equal
    must_look_alike = equal is False and settings.verify_hash == "drift"
    described = wish.described_pdq is not None or wish.described_phash is not None
    if equal is None and settings.verify_hash == "strict":
        _refuse("hash_missing", body, settings.image)
    if equal is False and (settings.verify_hash == "strict" or (must_look_alike and not described)):
        _refuse("hash_mismatch", body, settings.image)
    boxes = _boxes(wish, body, settings.image)

    def look(whole: Rgb, framed: Rgb) -> None:
        hit = lists.of_pixels(whole)
        if hit:
            raise _Blocked(hit)
        if must_look_alike and not _looks_alike(wish, whole, framed):
            _refuse("hash_mismatch", body, settings.image)

    stored = prepare(body, settings.image, boxes or (), look if must_look_alike or lists.needs_pixels else None)
    if boxes is not None:
        columns["blurred"] = len(boxes)
    return stored


def _keeps_promise(wish: Wish, columns: Columns) -> bool | None:
    """Whether the body has the hashes that the list promised; None when it promised none that can be checked."""
    promised = {"sha256": wish.promised_sha256, "md5": wish.promised_md5}
    verdicts = [columns[name] == value for name, value in promised.items() if value is not None]
    return all(verdicts) if verdicts else None


def _refuse(reason: str, body: bytes, settings: ImageSettings) -> None:
    """Raises MediaError(reason) with what the header says; a body that is no usable image says so instead."""
    found = header(body)
    check_pixels(found, settings.max_pixels, settings.max_side)
    check_limits(found, len(body), settings)
    raise MediaError(reason, found)


def _boxes(wish: Wish, body: bytes, settings: ImageSettings) -> tuple[Box, ...] | None:
    if wish.boxes is None:
        return None
    try:
        return parse_boxes(wish.boxes)
    except BadBoxes:
        _refuse("boxes_unreadable", body, settings)
        raise


def _looks_alike(wish: Wish, whole: Rgb, framed: Rgb) -> bool:
    """By PDQ of the whole picture where the list has it, else by the perceptual hash of what would be stored."""
    if wish.described_pdq is not None:
        seen = pdq(whole)
        return seen.usable and distance_bits(seen.hash, wish.described_pdq) <= MATCH_BITS
    described = wish.described_phash
    return described is not None and ((phash(framed) ^ described) & (1 << 64) - 1).bit_count() <= DRIFT_PHASH_BITS


def _original(name: str, width: int, height: int) -> Columns:
    """Sizes fit 32 bits except those of forged headers, which are cut."""
    largest = 2**31 - 1
    return {"original_format": name, "original_width": min(width, largest), "original_height": min(height, largest)}


def _kept(stored: StoredImage) -> Columns:
    return {
        "exif": stored.exif,
        "width": stored.width,
        "height": stored.height,
        "format": stored.format,
        "image_bytes": len(stored.data),
        "image_sha256": hashlib.sha256(stored.data).hexdigest(),
    }
