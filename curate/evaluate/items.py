"""Held-out samples from WebDataset tars: `<key>.jpg|png|webp`, `<key>.txt` (a caption a line), `<key>.cls.txt` (the class name)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from curate.errors import InputError
from curate.evaluate.suite import Item
from curate.media.image import MediaError, decode_rgb
from curate.media.tar import TarError, read

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


def tars(path: Path) -> list[Path]:
    """The tar itself, or all tars of a folder in name order. Raises InputError when there is none."""
    found = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise InputError(f"{path} is neither a .tar nor a folder of them: an evaluation reads WebDataset tars (jpg, txt, cls.txt)")
    return found


def version(path: Path) -> list[str]:
    """Names, sizes and times of the tars: equal ones hold equal samples."""
    return [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in tars(path)]


def image_hashes(path: Path) -> set[str]:
    """sha256 of the bytes of each image. Raises InputError for damaged tars."""
    found: set[str] = set()
    for tar in tars(path):
        try:
            found |= {hashlib.sha256(data).hexdigest() for name, data in read(tar) if name.rpartition(".")[2] in IMAGE_EXTENSIONS}
        except TarError as error:
            raise InputError(f"{tar}: {error}") from None
    return found


def items(path: Path, min_side: int | None = None) -> Iterator[Item]:
    """The samples of a tar or a folder of tars, decoded; `min_side` allows a smaller decode of large JPEGs.

    Raises InputError naming tar and sample for damaged bytes: an evaluation that skips samples compares nothing.
    """
    for tar in tars(path):
        try:
            for key, members in itertools.groupby(read(tar), key=lambda member: member[0].split(".", 1)[0]):
                yield _item(tar, key, {name.split(".", 1)[1]: data for name, data in members}, min_side)
        except TarError as error:
            raise InputError(f"{tar}: {error}") from None


def _item(tar: Path, key: str, parts: dict[str, bytes], min_side: int | None) -> Item:
    image = next((parts[extension] for extension in IMAGE_EXTENSIONS if extension in parts), None)
    if image is None:
        raise InputError(f"{tar}: sample {key!r} has no image among {', '.join(sorted(parts))}")
    try:
        pixels = decode_rgb(image, min_side=min_side)
    except MediaError as error:
        raise InputError(f"{tar}: the image of sample {key!r} cannot be decoded ({error})") from None
    captions = tuple(line for line in parts.get("txt", b"").decode("utf-8", "replace").splitlines() if line.strip())
    label = parts["cls.txt"].decode("utf-8", "replace").strip() if "cls.txt" in parts else None
    return Item(pixels, captions, label)
