"""Packed shards come back as samples: split over consumers, shuffled by seed and epoch, checked against their index.

Needs only the shards' folder, not the pool. Nothing is extracted; a member is read where the shard's Parquet file says
that it lies, and its tar header must be that of a regular file of the right name and size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import AccountingError, UsageError
from curate.media.tar import BLOCK
from curate.objects import place
from curate.shards.index import Shard, ShardIndex, read_index, regular_file
from curate.shards.order import SAMPLE_ID, Positions, permutation
from curate.store import file_sha256

Verify = Literal["size", "sha256"]
OnCorrupt = Literal["raise", "skip"]
_COLUMNS = ("sample_id", "caption", "format", "image_offset", "image_bytes")


class Sample(NamedTuple):
    """One image with its caption; the image is still encoded."""

    image: bytes
    caption: str
    sample_id: str


@dataclass(frozen=True)
class Consumer:
    """One of the processes that share an epoch: a worker of a rank."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.worker < self.workers):
            raise UsageError(f"no such consumer: rank {self.rank} of {self.world_size}, worker {self.worker} of {self.workers}")

    @property
    def number(self) -> int:
        """From 0, over all ranks."""
        return self.rank * self.workers + self.worker

    @property
    def count(self) -> int:
        """How many there are."""
        return self.world_size * self.workers


class ShardReader:
    """Streams the samples of a packed subset.

    In each epoch the shards are put in an order that (seed, epoch) chooses, the samples of each shard too; every consumer
    takes one contiguous run of that sequence, so that it opens few shards and all take equally many, to within one.
    `verify="sha256"` hashes a shard's files before its first sample (each consumer for itself); `size` compares sizes.
    A corrupt shard raises AccountingError naming it; with `on_corrupt="skip"` all of it is left out and counted in `lost`.
    """

    def __init__(self, folder: str | Path, *, seed: int = 0, verify: Verify = "size", on_corrupt: OnCorrupt = "raise") -> None:
        self.folder, self.seed, self.verify, self.on_corrupt = place(folder), seed, verify, on_corrupt
        self.index: ShardIndex = read_index(self.folder)
        if self.index.mode != "copy":
            raise UsageError(f"{folder} is an index over part tars: read it as a selection")
        self.lost: dict[str, int] = {}  # shard -> its samples

    def __len__(self) -> int:
        return self.index.samples

    def share(self, consumer: Consumer) -> range:
        """Which positions of an epoch's sequence this consumer takes."""
        total = self.index.samples
        return range(consumer.number * total // consumer.count, (consumer.number + 1) * total // consumer.count)

    def epoch(self, epoch: int, consumer: Consumer | None = None, start: int = 0) -> Iterator[Sample]:
        """This consumer's samples of one epoch, from its `start`-th on (a skipped shard's samples count as delivered)."""
        share = self.share(consumer or Consumer())[start:]
        shards = permutation(len(self.index.shards), self.seed, epoch)
        begin = 0
        for number in shards.tolist():
            shard = self.index.shards[number]
            low, high = max(share.start, begin), min(share.stop, begin + shard.samples)
            if low < high:
                order = permutation(shard.samples, self.seed, epoch, number)[low - begin : high - begin]
                yield from self._samples(shard, order)
            begin += shard.samples

    def _samples(self, shard: Shard, order: Positions) -> Iterator[Sample]:
        if shard.tar in self.lost:
            return
        try:
            yield from _read(self.folder, self._metadata(shard), shard, order)
        except AccountingError:
            if self.on_corrupt == "raise":
                raise
            self.lost[shard.tar] = shard.samples

    def _metadata(self, shard: Shard) -> pa.Table:
        for name, size_bytes, sha256 in (
            (shard.tar, shard.bytes, shard.sha256),
            (shard.parquet, shard.parquet_bytes, shard.parquet_sha256),
        ):
            regular_file(self.folder / name, size_bytes)
            if self.verify == "sha256" and file_sha256(self.folder / name) != sha256:
                raise AccountingError(f"shard file {self.folder / name} is not the one that was packed (sha256 differs)")
        try:
            table = pq.read_table(self.folder / shard.parquet, columns=list(_COLUMNS), partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise AccountingError(f"shard file {self.folder / shard.parquet} cannot be read: {error}") from None
        if table.num_rows != shard.samples:
            raise AccountingError(f"shard file {self.folder / shard.parquet} has {table.num_rows} lines, not {shard.samples}")
        return table


def _read(folder: Path, table: pa.Table, shard: Shard, order: Positions) -> Iterator[Sample]:
    lines = table.take(pa.array(order))
    descriptor = os.open(folder / shard.tar, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        for name, caption, kind, offset, size in zip(*(lines[column].to_pylist() for column in _COLUMNS), strict=True):
            yield Sample(_image(descriptor, folder / shard.tar, f"{name}.{kind}", offset, size), caption or "", name)
    finally:
        os.close(descriptor)


def _image(descriptor: int, tar: Path, name: str, offset: int, size: int) -> bytes:
    """The member's bytes, its header checked on the way."""
    if not SAMPLE_ID.fullmatch(name.partition(".")[0]):
        raise AccountingError(f"shard {tar}: {name!r} is not a sample's name")
    data = os.pread(descriptor, size + BLOCK, offset - BLOCK)
    if len(data) != size + BLOCK or not _is_header_of(data[:BLOCK], name, size):
        raise AccountingError(f"shard {tar} is damaged: {name!r} does not lie at {offset}")
    return data[BLOCK:]


def _is_header_of(block: bytes, name: str, size: int) -> bool:
    """Whether this is the plain ustar header of a regular file of that name and size."""
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return (
        block[:100].rstrip(b"\0") == name.encode()
        and block[124:136].strip(b" \0") == b"%011o" % size
        and block[148:156].strip(b" \0") == b"%06o" % checksum
        and block[156:157] == b"0"
        and block[257:262] == b"ustar"
    )


def assigned(length: int, start: int, consumer: Consumer, chunk: int) -> Positions:
    """Positions of an epoch that a consumer takes when ranks take turns and a rank's workers take turns by chunks.

    Rank r of R takes start + r, start + r + R, …; of these worker w of W takes chunks w, w + W, …. So a loader that asks its
    workers in turn for batches of `chunk` restores the rank's order, and what was delivered up to `start` does not depend
    on how many ranks there are.
    """
    mine = np.arange(start + consumer.rank, length, consumer.world_size, dtype=np.int64)
    own: Positions = mine[(np.arange(len(mine)) // chunk) % consumer.workers == consumer.worker]
    return own
