"""What all parts are compared with: hashes, runs of words and small pictures of every item of the evaluation sets, in one folder.

It lies in the pool's tmp folder for as long as a run takes: evaluation sets are read anew by each, and none of them stays in the pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.decontaminate.sets import Evaluation, Item, items
from curate.decontaminate.wording import hash_of, runs
from curate.embeddings import Unit
from curate.media.image import ImageSettings, MediaError, Rgb, decode_rgb, phash, prepare
from curate.media.pdq import pdq
from curate.progress import Progress

_SMALL = ImageSettings(resize_mode="keep_ratio_largest", size=192, quality=92, reencode="always")
_SCHEMA = pa.schema(
    {"name": pa.string(), "evaluation": pa.int32(), "sha256": pa.string(), "phash": pa.int64(), "offset": pa.int64(), "size": pa.int64()}
)
Key = TypeVar("Key", str, int)
Describe = Callable[[Sequence[Rgb]], Unit]
_ROWS, _PAIRS = 1024, 1 << 24  # of a part, compared with all items together; in memory at once
_AT_ONCE = 64  # pictures are described together
_RUNS = pa.schema({"hash": pa.uint64(), "item": pa.int64()})


@dataclass(frozen=True)
class Tally:
    """Items of one set, and how many of them have no image that can be decoded."""

    name: str
    items: int
    undecodable: int


@dataclass
class _Written:
    """Lines of the tables under way."""

    lines: list[dict[str, object]] = field(default_factory=list)
    runs: dict[int, list[int]] = field(default_factory=dict)  # hash of a run of words -> the items that have it
    size_bytes: int = 0
    waiting: dict[int, Rgb] = field(default_factory=dict)  # pictures that are still to be described
    vectors: list[tuple[list[int], Unit]] = field(default_factory=list)

    def add(self, item: Item, evaluation: int, name: str, caption_words: int | None, describe: Describe | None) -> bytes:
        """Takes an item in; returns its small picture."""
        number = len(self.lines)
        line, small, pixels = _line(item, evaluation, name, self.size_bytes)
        self.lines.append(line)
        self.size_bytes += len(small)
        for _, run in runs(item.captions, caption_words) if caption_words else ():
            owners = self.runs.setdefault(hash_of(run), [])
            if number not in owners[-1:]:
                owners.append(number)
        if describe is not None and pixels is not None:
            self.waiting[number] = pixels
            if len(self.waiting) == _AT_ONCE:
                self._describe(describe)
        return small

    def _describe(self, describe: Describe) -> None:
        self.vectors.append((list(self.waiting), describe(list(self.waiting.values()))))
        self.waiting = {}

    def save(self, folder: Path, describe: Describe | None) -> None:
        """Writes all but the pictures."""
        pq.write_table(pa.Table.from_pylist(self.lines, schema=_SCHEMA), folder / "items.parquet")
        hashes = sorted(self.runs)
        told = {"hash": np.repeat(np.array(hashes, np.uint64), [len(self.runs[one]) for one in hashes])}
        told["item"] = np.array([item for one in hashes for item in self.runs[one]], np.int64)
        pq.write_table(pa.table(told, schema=_RUNS), folder / "runs.parquet")
        if describe is not None and self.waiting:
            self._describe(describe)
        if self.vectors:
            np.save(folder / "described.npy", np.concatenate([numbers for numbers, _ in self.vectors]))
            np.save(folder / "vectors.npy", np.concatenate([vectors for _, vectors in self.vectors]))


def build(
    folder: Path, sets: Sequence[Evaluation], caption_words: int | None, describe: Describe | None, progress: Progress
) -> tuple[list[Tally], str]:
    """Writes the index into a new folder; returns what was read, and a digest of all that it holds. Raises InputError."""
    folder.mkdir(parents=True)
    made, tallies, digest = _Written(), [], hashlib.sha256()
    progress.start("read evaluation sets", None, "items")
    with (folder / "pictures").open("wb") as pictures:
        for number, evaluation in enumerate(sets):
            before = len(made.lines)
            for item in items(evaluation):
                pictures.write(made.add(item, number, f"{evaluation.name}/{item.name}", caption_words, describe))
                digest.update(repr((item.name, made.lines[-1].get("sha256"), item.captions if caption_words else ())).encode())
                progress.advance("read evaluation sets")
            found = made.lines[before:]
            tallies.append(Tally(evaluation.name, len(found), sum(line["size"] == 0 for line in found)))
            digest.update(evaluation.name.encode())
    made.save(folder, describe)
    progress.finish("read evaluation sets")
    return tallies, digest.hexdigest()


def _line(item: Item, evaluation: int, name: str, offset: int) -> tuple[dict[str, object], bytes, Rgb | None]:
    """One item; without a hash where there is too little in the picture for one to mean anything."""
    line: dict[str, object] = {"name": name, "evaluation": evaluation, "offset": offset, "size": 0}
    if item.image is None:
        return line, b"", None
    line["sha256"] = hashlib.sha256(item.image).hexdigest()
    try:
        pixels = decode_rgb(item.image)
        small = prepare(item.image, _SMALL).data
    except MediaError:
        return line, b"", None
    line |= {"phash": phash(pixels) if pdq(pixels).usable else None, "size": len(small)}
    return line, small, pixels


class Index:
    """The index, open for matching."""

    def __init__(self, folder: Path) -> None:
        table = pq.read_table(folder / "items.parquet")
        self._folder = folder
        self.names: list[str] = table["name"].to_pylist()
        self.by_bytes = _places(table["sha256"].to_pylist(), range(table.num_rows))
        self._hashed = np.flatnonzero(table["phash"].is_valid().to_numpy())
        self._hashes = table["phash"].drop_null().to_numpy().astype(np.int64).view(np.uint64)
        self._offsets, self._sizes = (table[name].to_numpy() for name in ("offset", "size"))
        has = (folder / "vectors.npy").exists()
        self._described = np.load(folder / "described.npy") if has else np.zeros(0, np.int64)
        self._vectors: Unit = np.load(folder / "vectors.npy") if has else np.zeros((0, 0), np.float32)
        found = pq.read_table(folder / "runs.parquet")
        self._runs = _places(found["hash"].to_pylist(), found["item"].to_pylist())

    def near(self, phash: int, radius: int, most: int) -> list[tuple[int, int]]:
        """(item, bits in which its hash differs) of at most so many items within the radius, the nearest first."""
        distance = np.bitwise_count(self._hashes ^ np.uint64(phash & (1 << 64) - 1))
        within: NDArray[np.int64] = np.flatnonzero(distance <= radius)
        order = within[np.argsort(distance[within], kind="stable")][:most]
        return [(int(self._hashed[at]), int(distance[at])) for at in order]

    def alike(self, vectors: Unit, cosine: float, most: int) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """For each vector that has any: its number, and (item, cosine) of at most so many items that are near enough, the nearest first."""
        if not len(self._vectors):
            return
        step = max(1, min(_ROWS, _PAIRS // len(self._vectors)))
        for low in range(0, len(vectors), step):
            found = vectors[low : low + step] @ self._vectors.T
            for at in np.flatnonzero((found >= cosine).any(axis=1)).tolist():
                near = np.flatnonzero(found[at] >= cosine)
                order = near[np.argsort(-found[at, near], kind="stable")][:most]
                yield low + at, [(int(self._described[one]), float(found[at, one])) for one in order]

    def says(self, run: str) -> Sequence[int]:
        """The items with a caption in which these words follow each other."""
        return self._runs.get(hash_of(run), ())

    def picture(self, item: int) -> bytes:
        """The item's picture as a small JPEG; empty where it has none."""
        with (self._folder / "pictures").open("rb") as stream:
            stream.seek(int(self._offsets[item]))
            return stream.read(int(self._sizes[item]))

    def pixels(self, item: int) -> Rgb:
        """The small picture, decoded."""
        return decode_rgb(self.picture(item))


def _places(keys: Iterable[Key | None], items: Iterable[int]) -> dict[Key, list[int]]:
    """Key -> its items, in their order."""
    found: dict[Key, list[int]] = {}
    for key, item in zip(keys, items, strict=True):
        if key is not None:
            found.setdefault(key, []).append(item)
    return found
