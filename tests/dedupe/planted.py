"""Held-back pictures with planted copies: how many of a kind are found, and how many stand beside another picture.

No threshold of duplicate search was set by these pictures: photo-like ones that are made here (`tests.bench.photos`), and the
real clipart of the demo (`curate.demo.openclipart`). `python -m tests.dedupe.planted photos 200` and `… clipart 0.1` (a share)
print recall and precision of each kind of copy; of clipart, pictures that a person judged to be the same count as one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageFilter

from curate.dedupe.settings import DedupeSettings
from curate.demo import openclipart
from curate.media.image import ImageSettings, MediaError, Rgb, decode_rgb, prepare
from curate.score.image import observe
from tests.bench.photos import photo
from tests.dedupe.arrays import Groups, Pictures, group

REVIEWED = Path(__file__).parent / "clipart_groups.csv"
MOST_PIXELS = 4_000_000
AS_IT_IS = ImageSettings(resize_mode="no", format="png", max_pixels=MOST_PIXELS)


@dataclass(frozen=True)
class Found:
    """Of the copies of one kind: how many there are, stand in the group of their original, in any group, in one with another picture."""

    copies: int
    found: int
    merged: int
    wrong: int

    @property
    def recall(self) -> float:
        """Share of the copies that are found."""
        return self.found / self.copies

    @property
    def precision(self) -> float:
        """Share of the copies in a group whose group holds nothing else than their original and its copies."""
        return 1 - self.wrong / max(1, self.merged)


def photos(numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Photo-like pictures: name and file."""
    for number in numbers:
        yield f"photo {number}", _jpeg(photo(number), 92)


def clipart(share: float = 1.0) -> Iterator[tuple[str, bytes]]:
    """A share of the demo's clipart and stamps, each file once: address and file. Raises UsageError where it cannot be had."""
    corpus = openclipart.cached(openclipart.cache_folder())
    answers, bodies = corpus.answers(), corpus.bodies()
    for line in corpus.truth().to_pylist():
        address = str(line["address"])
        if line["kind"] in ("picture", "stamp") and hashlib.sha256(address.encode()).digest()[0] < 256 * share:
            told = answers[unquote(address)]
            yield address, bodies[told.offset : told.offset + told.size_bytes]


def copies(data: bytes, seed: int) -> dict[str, bytes] | None:
    """Copies of a picture as others publish them, by kind; None when it cannot be decoded or is larger than `MOST_PIXELS`."""
    try:
        pixels = decode_rgb(prepare(data, AS_IT_IS).data)
    except MediaError:
        return None
    random, image = np.random.default_rng(seed), Image.fromarray(pixels)
    gain, side = 1 + random.uniform(0.05, 0.1) * random.choice([-1, 1]), min(image.size)
    halved = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)
    return {
        "exact": data,
        "re-encoded": _jpeg(pixels, int(random.integers(60, 86))),
        "halved": _jpeg(np.asarray(halved), 90),
        "brightness": _jpeg(np.clip(pixels * gain, 0, 255).astype(np.uint8), 90),
        "blur": _jpeg(np.asarray(image.filter(ImageFilter.GaussianBlur(side / 256 * random.uniform(0.5, 1.5)))), 90),
    }


def _jpeg(pixels: Rgb, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def pictures_of(names: Sequence[str], bodies: Sequence[bytes]) -> Pictures:
    """What fetch and score would have stored about the files."""
    looks = [observe(decode_rgb(prepare(body, ImageSettings()).data)) for body in bodies]
    digests = b"".join(hashlib.sha256(body).digest() for body in bodies)
    ids = b"".join(hashlib.sha256(name.encode()).digest()[:16] for name in names)
    return Pictures(
        sample_id=np.frombuffer(ids, ">u8").astype(np.uint64).reshape(-1, 2),
        sha256=np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 4),
        hashed=np.arange(len(bodies)),
        hashes=np.array([look.phash for look in looks], np.int64).view(np.uint64),
        grids=np.frombuffer(b"".join(look.colour_grid for look in looks), np.uint8).reshape(-1, 192),
    )


def found_by_kind(given: Iterable[tuple[str, bytes]], same: Iterable[frozenset[str]] = ()) -> dict[str, Found]:
    """Groups the pictures and their copies together; `same` are names of pictures that show the same thing by themselves."""
    names, kinds, bodies = list[str](), list[str](), list[bytes]()
    for seed, (name, data) in enumerate(given):
        made = copies(data, seed) or {}
        for kind, body in {"original": data, **made}.items() if made else ():
            names.append(name)
            kinds.append(kind)
            bodies.append(body)
    groups = group(pictures_of([f"{name} {kind}" for name, kind in zip(names, kinds, strict=True)], bodies), DedupeSettings())
    return _counted(names, kinds, groups, {name: min(others) for others in same for name in others})


def _counted(names: list[str], kinds: list[str], groups: Groups, shown: dict[str, str]) -> dict[str, Found]:
    own = groups.representative.tolist()
    originals = {name: of for name, kind, of in zip(names, kinds, own, strict=True) if kind == "original"}
    within: dict[int, set[str]] = {}
    for name, of in zip(names, own, strict=True):
        within.setdefault(of, set()).add(shown.get(name, name))
    copies, found, merged, wrong = (Counter[str]() for _ in range(4))
    for name, kind, of, size in zip(names, kinds, own, groups.size.tolist(), strict=True):
        copies[kind] += 1
        found[kind] += of == originals[name]
        merged[kind] += size > 1
        wrong[kind] += len(within[of]) > 1
    return {kind: Found(copies[kind], found[kind], merged[kind], wrong[kind]) for kind in copies if kind != "original"}


def reviewed() -> list[dict[str, str]]:
    """Lines of the last review: `verdict` (same, different), `merged` (yes, no: what the code does), `pictures` (a space between)."""
    with REVIEWED.open(newline="") as file:
        return list(csv.DictReader(file))


def main(kind: str, count: str) -> None:
    """Measures and prints."""
    same = [frozenset(line["pictures"].split()) for line in reviewed() if line["verdict"] == "same"]
    given = photos(range(50_000, 50_000 + int(count))) if kind == "photos" else clipart(float(count))
    for name, one in found_by_kind(given, same).items():
        print(f"{name}: recall {one.recall:.4f}, precision {one.precision:.4f}, {one}")


if __name__ == "__main__":
    main(*sys.argv[1:])
