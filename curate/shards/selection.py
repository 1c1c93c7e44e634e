"""A selection: any rows of the pool, read out of the part tars where they lie, in an order that a seed chooses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curate.errors import SchemaError
from curate.objects import place
from curate.shards.order import permutation
from curate.shards.reader import Consumer, Sample, assigned
from curate.shards.sources import Tars

COLUMNS = pa.schema(
    [("tar_file", pa.string()), ("tar_offset", pa.int64()), ("tar_size", pa.int64()), ("caption", pa.string()), ("sample_id", pa.string())]
)
"""What `rows` must have; `image_sha256`, when it is there, is checked against the bytes."""


class Selection:
    """Rows of a pool as training samples, without packing.

    `rows` holds one line per sample (about 150 bytes of memory each). The order of an epoch is a function of seed, epoch
    and the rows' order in `rows`, which is why a query for it should be sorted by (part, row). Raises SchemaError when a
    column is missing or a line has no image.
    """

    def __init__(self, pool: str | Path, rows: pa.Table, *, seed: int = 0) -> None:
        for field in COLUMNS:
            if field.name not in rows.column_names:
                raise SchemaError(f"a selection needs the column {field.name!r}; it has {', '.join(rows.column_names)}")
        checked = ["image_sha256"] if "image_sha256" in rows.column_names else []
        self.rows = rows.select([*COLUMNS.names, *checked]).combine_chunks()
        self.pool, self.seed = place(pool), seed
        if self.rows["tar_file"].null_count:
            raise SchemaError(f"{self.rows['tar_file'].null_count} rows of the selection have no image: add  tar_file IS NOT NULL")

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def epoch(self, epoch: int, consumer: Consumer | None = None, start: int = 0, chunk: int = 1) -> Iterator[Sample]:
        """This consumer's samples of one epoch, from global position `start` on; see `assigned` for who takes which.

        All ranks together have seen the first `start` positions of the epoch's order: with another number of ranks the
        rest comes in the same order. Raises AccountingError naming the tar when bytes are missing or not those fetched.
        """
        order = permutation(len(self), self.seed, epoch)[assigned(len(self), start, consumer or Consumer(), chunk)]
        with Tars(self.pool) as tars:
            for begin in range(0, len(order), 1024):
                for line in self.rows.take(pa.array(order[begin : begin + 1024])).to_pylist():
                    image = tars.read(line["tar_file"], line["tar_offset"], line["tar_size"], line.get("image_sha256"))
                    yield Sample(image, line["caption"] or "", line["sample_id"])
