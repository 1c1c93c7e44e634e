"""One shard: a tar of whole samples, members adjacent, and a Parquet file with a line for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import AccountingError
from curate.media.tar import TarWriter
from curate.media.url import redacted
from curate.shards.blurring import Blur
from curate.shards.index import Shard, shard_name
from curate.shards.order import Positions
from curate.shards.sample import sample_json
from curate.shards.sources import Member, Tars
from curate.store import file_sha256

EXTENSIONS = frozenset({"jpg", "png", "webp"})


class ShardWriter:
    """Writes numbered shards into a folder, `count` of them in all."""

    def __init__(self, folder: Path, count: int, tars: Tars, score_names: list[str], blur: Blur | None = None) -> None:
        self._folder, self._count, self._tars, self._score_names, self._blur = folder, count, tars, score_names, blur

    @staticmethod
    def tar_files(subset: str, numbers: Iterable[int], count: int) -> list[str]:
        """Paths of shards' tars, relative to the pool."""
        return [f"shards/{subset}/{shard_name(int(number), count)}.tar" for number in numbers]

    def write(self, number: int, samples: pa.Table) -> tuple[Shard, Positions, dict[int, bytes]]:
        """Writes the samples in their order; returns the shard, each member's offset and size, shape (n, 3, 2), and the sha256
        of images that are not the fetched ones, by position.

        Raises AccountingError when an image is missing or is not the one that was fetched.
        """
        name = shard_name(number, self._count)
        tar, parquet = self._folder / f"{name}.tar", self._folder / f"{name}.parquet"
        lines = samples.to_pylist()
        where = np.empty((len(lines), 3, 2), np.int64)
        changed: dict[int, bytes] = {}
        images = self._tars.ahead([_stored(line) for line in lines])
        with TarWriter(tar) as archive:
            for at, line in enumerate(lines):
                line["url"] = redacted(line["url"] or "")
                image = self._packed(line, _next(images, line))
                if line["image_sha256"] != samples["image_sha256"][at].as_py():
                    changed[at] = bytes.fromhex(line["image_sha256"])
                for member, (extension, data) in enumerate(self._members(line, image)):
                    where[at, member] = archive.add(f"{line['sample_id']}.{extension}", data), len(data)
        pq.write_table(_metadata(samples, lines, where), parquet, compression="zstd", store_schema=False)
        shard = Shard(
            tar=tar.name, samples=len(lines), bytes=tar.stat().st_size, sha256=file_sha256(tar),
            parquet=parquet.name, parquet_bytes=parquet.stat().st_size, parquet_sha256=file_sha256(parquet),
        )  # fmt: skip
        return shard, where, changed

    def _packed(self, line: dict[str, Any], image: bytes) -> bytes:
        """The bytes to pack; the line then says what they are."""
        packed = image if self._blur is None else self._blur(image, line)
        if packed is not image:
            line["image_bytes"], line["image_sha256"] = len(packed), hashlib.sha256(packed).hexdigest()
        return packed

    def _members(self, line: Mapping[str, Any], image: bytes) -> tuple[tuple[str, bytes], tuple[str, bytes], tuple[str, bytes]]:
        caption = (line["caption"] or "").encode()
        return (line["format"], image), ("txt", caption), ("json", sample_json(line, self._score_names))


def _stored(line: Mapping[str, Any]) -> Member:
    if line["tar_file"] is None or line["format"] not in EXTENSIONS or line["image_sha256"] is None:
        raise AccountingError(f"{_where(line)} is kept and has no image")
    return line["tar_file"], line["tar_offset"], line["tar_size"], line["image_sha256"]


def _next(images: Iterator[bytes], line: Mapping[str, Any]) -> bytes:
    try:
        return next(images)
    except AccountingError as error:
        raise AccountingError(f"{_where(line)}: {error}") from None


def _where(line: Mapping[str, Any]) -> str:
    return f"row {line['row']} of part {line['part']}"


def _metadata(samples: pa.Table, lines: list[dict[str, Any]], where: Positions) -> pa.Table:
    """The Parquet lines: everything known, the image's place in the shard's tar, no place in part tars."""
    kept = [name for name in samples.schema.names if name not in ("place", "tar_file", "tar_offset", "tar_size", "url")]
    urls = pa.array([line["url"] for line in lines], pa.string())
    table = samples.select(kept).add_column(3, "url", urls).append_column("image_offset", pa.array(where[:, 0, 0]))
    for name in ("image_bytes", "image_sha256"):  # of what was packed
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array([line[name] for line in lines], table.schema.field(at).type))
    return table.replace_schema_metadata(None).combine_chunks()
