"""Held-out samples from WebDataset tars: `<key>.jpg|png|webp`, `<key>.txt` (a caption a line), `<key>.cls.txt` (the class name)."""

from __future__ import annotations

import hashlib
import itertools
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from curate.errors import InputError
from curate.evaluate.suite import Item
from curate.media.image import MediaError, decode_rgb

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


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
    images = (image_of(parts) for tar in tars(path) for _, parts in samples(tar))
    return {hashlib.sha256(image).hexdigest() for image in images if image is not None}


def items(path: Path, min_side: int | None = None) -> Iterator[Item]:
    """The samples of a tar or a folder of tars, decoded; `min_side` allows a smaller decode of large JPEGs.

    Raises InputError naming tar and sample for damaged bytes: an evaluation that skips samples compares nothing.
    """
    for tar in tars(path):
        for key, parts in samples(tar):
            yield _item(tar, key, parts, min_side)


def samples(tar: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key of each sample of a tar, and its files by extension, both told apart as webdataset does. Raises InputError for a damaged tar."""
    try:
        with tarfile.open(tar) as opened:
            for key, named in itertools.groupby(_named(opened), key=lambda found: found[0]):
                yield key, {extension: data for _, extension, data in named}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{tar}: {error}") from None


def _named(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """Key, extension in lower case, and bytes of every regular file that has both."""
    for member in tar:
        found = _NAME.match(member.name)
        content = tar.extractfile(member) if found and member.isreg() else None
        if found and content is not None:
            yield found[1], found[2].lower(), content.read()


def image_of(parts: dict[str, bytes]) -> bytes | None:
    """The image file of a sample."""
    return next((parts[extension] for extension in IMAGE_EXTENSIONS if extension in parts), None)


def captions_of(parts: dict[str, bytes]) -> tuple[str, ...]:
    """A caption for each line of `.txt`."""
    return tuple(line for line in parts.get("txt", b"").decode("utf-8", "replace").splitlines() if line.strip())


def _item(tar: Path, key: str, parts: dict[str, bytes], min_side: int | None) -> Item:
    image = image_of(parts)
    if image is None:
        raise InputError(f"{tar}: sample {key!r} has no image among {', '.join(sorted(parts))}")
    try:
        pixels = decode_rgb(image, min_side=min_side)
    except MediaError as error:
        raise InputError(f"{tar}: the image of sample {key!r} cannot be decoded ({error})") from None
    label = parts["cls.txt"].decode("utf-8", "replace").strip() if "cls.txt" in parts else None
    return Item(pixels, captions_of(parts), label)
