"""Reads what duplicate search needs from a pool, compactly: hex digests become words, only rows with an image stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.dedupe.colour import GRID_BYTES
from curate.dedupe.grouping import Pictures
from curate.errors import SchemaError, UsageError
from curate.store import Pool, Snapshot

Keys = NDArray[np.int32]

_NIBBLE = np.full(256, 255, np.uint8)
for _digit, _character in enumerate("0123456789abcdef"):
    _NIBBLE[ord(_character)] = _digit


@dataclass(frozen=True)
class Inputs:
    """Pinned versions of the three tables that duplicate search reads; `scores` is None when only bytes are compared."""

    rows: Snapshot
    fetched: Snapshot
    scores: Snapshot | None

    def names(self) -> list[str]:
        """Table and file name of every part file, in order: what the outcome depends on."""
        tables = [self.rows, self.fetched, *([self.scores] if self.scores else [])]
        return [f"{table.table}/{file.path}" for table in tables for file in table.files]

    def parts(self) -> list[int]:
        """Parts that have been fetched, ascending."""
        return sorted(self.fetched.by_part)


@dataclass(frozen=True)
class Located:
    """Pictures with the (part, row) of each, and the number of rows of every part, those without an image included."""

    pictures: Pictures
    part: Keys
    row: Keys
    rows_of_part: dict[int, int]


def pin(pool: Pool, scores: str | None) -> Inputs:
    """Pins the newest versions. Raises UsageError when a table is not there yet."""
    found = Inputs(pool.snapshot("rows"), pool.snapshot("fetched"), pool.snapshot(scores) if scores else None)
    if not found.fetched.files:
        raise UsageError("nothing has been fetched into this pool yet: run  curate run ingest  first")
    if found.scores is None:
        return found
    names = found.scores.schema.names if found.scores.schema else []
    missing = [name for name in ("phash", "colour_grid") if name not in names]
    if missing:
        raise UsageError(f"table {scores} has no {missing[0]}: score the pool with the image scorer, or dedupe with perceptual=false")
    unscored = sorted(set(found.parts()) - set(found.scores.by_part))
    if unscored:
        raise UsageError(f"{len(unscored)} parts, the first of them {unscored[0]}, are not in {scores}: run  curate score  first")
    return found


def read(inputs: Inputs) -> Located:
    """All rows with an image, part by part; about 270 bytes a row."""
    pieces = [_read_part(inputs, part) for part in inputs.parts()]
    offsets = np.cumsum([0, *(len(piece.pictures) for piece in pieces)])
    pictures = Pictures(
        sample_id=np.concatenate([piece.pictures.sample_id for piece in pieces]),
        sha256=np.concatenate([piece.pictures.sha256 for piece in pieces]),
        hashed=np.concatenate([piece.pictures.hashed + offset for piece, offset in zip(pieces, offsets, strict=False)]),
        hashes=np.concatenate([piece.pictures.hashes for piece in pieces]),
        grids=np.concatenate([piece.pictures.grids for piece in pieces]),
    )
    part = np.concatenate([piece.part for piece in pieces])
    row = np.concatenate([piece.row for piece in pieces])
    return Located(pictures, part, row, {part: count for piece in pieces for part, count in piece.rows_of_part.items()})


def _read_part(inputs: Inputs, part: int) -> Located:
    rows = _columns(inputs.rows, part, ("row", "sample_id"))
    fetched = _columns(inputs.fetched, part, ("row", "reason", "sha256"))
    scores = _columns(inputs.scores, part, ("row", "phash", "colour_grid")) if inputs.scores else None
    for table in (fetched, scores):
        if table is not None and not table.column("row").equals(rows.column("row")):
            raise SchemaError(f"part {part}: the rows of two tables do not line up: run  curate verify")
    with_image = np.flatnonzero(pc.is_null(fetched.column("reason")).to_numpy(zero_copy_only=False))
    hashed, hashes, grids = _hashes(scores.take(pa.array(with_image))) if scores is not None else _no_hashes()
    pictures = Pictures(
        _words(rows.column("sample_id").take(pa.array(with_image)), 2), _words(fetched.column("sha256").take(pa.array(with_image)), 4),
        hashed, hashes, grids,
    )  # fmt: skip
    row = rows.column("row").to_numpy()[with_image].astype(np.int32)
    return Located(pictures, np.full(len(row), part, np.int32), row, {part: rows.num_rows})


def _columns(snapshot: Snapshot, part: int, columns: Sequence[str]) -> pa.Table:
    if part not in snapshot.by_part:
        raise SchemaError(f"table {snapshot.table} lacks part {part}: run  curate verify")
    return pq.read_table(snapshot.path_of(part), columns=list(columns), partitioning=None).combine_chunks()


def _hashes(scores: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]:
    """Places of the rows that have both values, and the values; a failed decode has neither."""
    present = pc.and_(pc.is_valid(scores.column("phash")), pc.is_valid(scores.column("colour_grid")))
    places = np.flatnonzero(present.to_numpy(zero_copy_only=False))
    chosen = scores.take(pa.array(places))
    grids = np.frombuffer(b"".join(chosen.column("colour_grid").to_pylist()), np.uint8)
    if grids.size != len(places) * GRID_BYTES:
        raise SchemaError(f"colour_grid should hold {GRID_BYTES} bytes in each row: score the pool again")
    return places, chosen.column("phash").to_numpy().astype(np.int64).view(np.uint64), grids.reshape(-1, GRID_BYTES)


def _no_hashes() -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]:
    return np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros((0, GRID_BYTES), np.uint8)


def _words(column: pa.ChunkedArray, words: int) -> NDArray[np.uint64]:
    """Lower-case hex digests as big-endian 64-bit words, shape (rows, words)."""
    text = "".join(value or "" for value in column.to_pylist())
    digits = _NIBBLE[np.frombuffer(text.encode(), np.uint8)]
    if len(digits) != len(column) * words * 16 or (digits == 255).any():
        raise SchemaError(f"a digest is not {words * 16} hex digits: run  curate verify")
    octets = (digits[0::2] << np.uint8(4)) | digits[1::2]
    return octets.reshape(-1, words * 8).view(">u8").astype(np.uint64)
