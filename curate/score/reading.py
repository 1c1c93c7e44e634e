"""From a part's tables to decoded images: which images there are, their bytes, and pixels ahead of those who use them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.bucket import download
from curate.errors import LocalFault, SchemaError
from curate.media.blur import BadBoxes, checked_box
from curate.media.fill import fill
from curate.media.image import MediaError, decode_rgb
from curate.objects import ObjectPath
from curate.parquet import read_table
from curate.score.scorer import Opened, Pixels
from curate.stage import PartTask

_ROW_COLUMNS = ("row", "sample_id", "caption")
_FETCHED_COLUMNS = ("row", "reason", "original_width", "original_height", "tar_file", "tar_offset", "tar_size")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Image:
    """One stored image of a part and the positions of the rows that share it; `boxes` are None where nobody looked for them."""

    tar_file: str
    offset: int
    size_bytes: int
    rows: NDArray[np.int64]
    boxes: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class Seen:
    """What the scorers observed of one image (one entry per scorer), or why it could not be decoded."""

    image: Image
    observed: Sequence[Any]
    reason: str | None = None
    decoded: bool = False  # whether a decode was tried


def read_part(task: PartTask, boxes: tuple[str, str] | None = None) -> pa.Table:
    """Rows of the part with what `fetched` says of them; the tables line up or SchemaError says that they do not.

    `boxes` is a table and its column of boxes, which becomes the column `boxes`. Of a pool of which nothing was fetched: rows,
    and the reason why one will not be.
    """
    if "fetched" not in task.inputs:
        return read_table(task.inputs["rows"], (*_ROW_COLUMNS, "reason")).combine_chunks()
    rows = read_table(task.inputs["rows"], _ROW_COLUMNS)
    fetched = read_table(task.inputs["fetched"], _FETCHED_COLUMNS)
    if not rows.column("row").equals(fetched.column("row")):
        raise SchemaError(f"part {task.part}: rows and fetched do not line up: run  curate verify")
    for name in fetched.column_names[1:]:
        rows = rows.append_column(name, fetched.column(name))
    if boxes is not None:
        found = read_table(task.inputs[boxes[0]], ("row", boxes[1]))
        if not rows.column("row").equals(found.column("row")):
            raise SchemaError(f"part {task.part}: rows and {boxes[0]} do not line up: run  curate verify")
        _refuse_pixels(task.part, boxes, found.column(boxes[1]))
        rows = rows.append_column("boxes", found.column(boxes[1]))
    return rows.combine_chunks()


def _refuse_pixels(part: int, boxes: tuple[str, str], found: pa.ChunkedArray) -> None:
    """A box in pixels lies outside of every picture: nothing would be painted over, and nobody told."""
    try:
        for picture in found.to_pylist():
            _ = [checked_box(box) for box in picture or ()]
    except BadBoxes as error:
        raise SchemaError(f"part {part}: {boxes[1]} of {boxes[0]}: {error}") from None


def images_of(rows: pa.Table) -> list[Image]:
    """Distinct stored images in the order in which they lie in the tars; without tars all rows share one that nobody looks at."""
    if "tar_file" not in rows.column_names:
        return [Image("", 0, 0, np.flatnonzero(rows.column("reason").is_null().to_numpy()))]
    stored = pc.and_(pc.is_null(rows.column("reason")), pc.is_valid(rows.column("tar_file")))
    present = np.flatnonzero(stored.to_numpy(zero_copy_only=False))
    chosen = rows.select(["tar_file", "tar_offset", "tar_size"]).take(pa.array(present)).append_column("place", pa.array(present))
    places: dict[tuple[str, int, int], list[int]] = {}
    for line in chosen.to_pylist():
        places.setdefault((line["tar_file"], line["tar_offset"], line["tar_size"]), []).append(line["place"])
    boxes = rows.column("boxes") if "boxes" in rows.column_names else None
    return [
        Image(*key, np.asarray(places[key], np.int64), None if boxes is None else boxes[places[key][0]].as_py()) for key in sorted(places)
    ]


@dataclass
class TarReader:
    """Reads images from the pool's tars by position; closes them at the end.

    A tar in an object store is brought to this machine in one request, under a name that `temporary` gives, and deleted at
    the end.
    """

    pool: Path
    temporary: Callable[[str], Path]
    _files: dict[str, int] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> TarReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, image: Image) -> bytes:
        """The stored bytes. Raises LocalFault when the tar is not there or too short."""
        try:
            data = os.pread(self._descriptor(image.tar_file), image.size_bytes, image.offset)
        except OSError as error:
            raise LocalFault(f"cannot read {image.tar_file}: {error.strerror}; run  curate verify  to see what is damaged") from error
        if len(data) != image.size_bytes:
            raise LocalFault(f"{image.tar_file} is shorter than the table says: run  curate verify  to see what is damaged")
        return data

    def _descriptor(self, tar_file: str) -> int:
        with self._lock:
            if tar_file not in self._files:
                descriptor = os.open(self._local(tar_file), os.O_RDONLY)
                self._stack.callback(os.close, descriptor)
                self._files[tar_file] = descriptor
            return self._files[tar_file]

    def _local(self, tar_file: str) -> Path:
        path = self.pool / tar_file
        if not isinstance(path, ObjectPath):
            return path
        copy = self.temporary(".tar")
        self._stack.callback(copy.unlink, missing_ok=True)
        if download(path.bucket, path.key, copy) not in tar_file:
            raise LocalFault(f"{tar_file} has another sha256 than its name says: run  curate verify  to see what is damaged")
        return copy


def look(tars: TarReader, scorers: Sequence[Opened], image: Image) -> Seen:
    """Reads and decodes one image, once, and lets every scorer see the pixels, which are dropped afterwards."""
    try:
        pixels = decode_rgb(tars.read(image))
    except MediaError as error:
        return Seen(image, [None] * len(scorers), error.reason, decoded=True)
    return Seen(image, [_observed(scorer, pixels, image.boxes) for scorer in scorers], decoded=True)


def _observed(scorer: Opened, pixels: Pixels, boxes: Sequence[Sequence[float]] | None) -> Any:
    """None for a scorer that needs no pixels, and for one that needs boxes where these are not known."""
    if scorer.observe is None or (scorer.masked and boxes is None):
        return None
    return scorer.observe(fill(pixels, boxes) if scorer.masked and boxes else pixels)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, depth: int) -> Iterator[Result]:
    """`map(function, items)` in order, computed by threads up to `depth` items ahead of the consumer."""
    with ThreadPoolExecutor(threads, "decode") as pool:
        source = iter(items)
        waiting: list[Future[Result]] = [pool.submit(function, item) for item in islice(source, depth)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
