"""What the rounds of duplicate search send each other.

A row is named by its **place**: part × 2³² + row, so that places ascend in (part, row) order. `id_high`, `id_low` are
its sample_id, `a` to `d` the sha256 of the bytes of its picture, or of its normalised caption, all as big-endian 64-bit words.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedupe.colour import GRID_BYTES, Grids
from curate.dedupe.hamming import Hashes
from curate.embeddings import Stored
from curate.errors import SchemaError
from curate.shuffle import Lines

Indices = NDArray[np.int64]

ID = ("id_high", "id_low")
SHA = ("a", "b", "c", "d")
_ID = [pa.field(name, pa.uint64()) for name in ID]
_LOOK = [pa.field("hash", pa.uint64()), pa.field("grid", pa.binary())]
_FOUND = [*_ID, pa.field("size", pa.int64()), pa.field("exact", pa.bool_())]


def _lines(key: str, *fields: tuple[str, pa.DataType] | pa.Field, placed: bool = False) -> Lines:
    return Lines(pa.schema([pa.field(*field) if isinstance(field, tuple) else field for field in fields]), key, placed)


PICTURES = _lines("a", *((name, pa.uint64()) for name in SHA), *_ID, ("place", pa.int64()), ("shown", pa.bool_()), *_LOOK)
"""Every row with an image; hash and colour grid where `shown`."""
PARTS = _lines("chunk", ("chunk", pa.int64()), ("part", pa.int64()), ("rows", pa.int64()), placed=True)
"""Every part with its number of rows, those without an image included."""
CAPTIONS = _lines("a", *((name, pa.uint64()) for name in SHA), *_ID, ("place", pa.int64()), ("shown", pa.bool_()), ("text", pa.string()))
"""Every row with an image and the normal form of its caption; where that is empty, the row is not `shown` and its digest is its place."""
OF = _lines("leader", ("leader", pa.int64()), ("place", pa.int64()))
"""Every row, and the one of its digest with the smallest sample_id, itself included."""
LEADERS = _lines("place", ("place", pa.int64()), *_ID, ("count", pa.int64()))
"""One row for each digest, and how many have it."""
SHOWN = _lines("hash", *_LOOK, *_ID, ("place", pa.int64()))
"""Leaders that have a perceptual hash."""
TEXTS = _lines("place", ("place", pa.int64()), ("text", pa.string()))
"""Leaders that have a caption."""
BANDS = _lines(
    "key", ("key", pa.uint64()), ("next", pa.uint16()), ("place", pa.int64()), *((name, pa.uint64()) for name in ("left", "right"))
)
"""Every distinct caption, once for each band of its signature, with its sketch; those that agree in a band have an equal key."""
MET = _lines("place", ("place", pa.int64()), ("other", pa.int64()))
"""Captions that share a band, the smaller place first; a pair stands there once for each band that it shares."""
TOLD = _lines("place", ("place", pa.int64()), ("other", pa.int64()), ("text", pa.string()))
"""The text of caption `other`, on its way to caption `place`."""
NODES = _lines("hash", *_LOOK, ("place", pa.int64()))
"""Distinct (hash, grid) values that are compared with those of near hashes; `place` stands for all that show it."""
BLOCKS = _lines("key", ("key", pa.uint64()), ("choice", pa.int32()), ("hash", pa.uint64()))
"""Distinct hashes, once for each choice of agreeing blocks; equal bits in those blocks give an equal key."""
NEAR = _lines("hash", ("hash", pa.uint64()), ("near", pa.uint64()))
"""Pairs of distinct hashes within the radius, each once."""
ASKED = _lines("hash", ("hash", pa.uint64()), ("near", pa.uint64()), ("grid", pa.binary()), ("place", pa.int64()))
"""A node of hash `near`, on its way to the nodes of hash `hash`."""
_PAIR = (("first", pa.int64()), ("second", pa.int64()), ("distance", pa.float32()), ("exact", pa.bool_()))
PAIRS = _lines("chunk", ("chunk", pa.int64()), *_PAIR, placed=True)
"""Merged pairs of places, `first` before `second`, on their way to the chunk of parts that `first` is in.

`distance` counts bits of perceptual hashes; of captions it is 1 − Jaccard index, of embeddings 1 − cosine."""
MEMBERS = _lines("root", ("root", pa.int64()), *_ID, ("place", pa.int64()), ("count", pa.int64()))
"""Leaders with the smallest place of their component."""
VERDICTS = _lines("leader", ("leader", pa.int64()), *_FOUND)
"""For each leader its group: smallest sample_id, number of pictures, whether all bytes are equal."""
ROWS = _lines("chunk", ("chunk", pa.int64()), ("place", pa.int64()), *_FOUND, placed=True)
"""The same for each row, on its way to the chunk of its part."""
CLUSTERED = Lines(
    pa.schema([*ROWS.schema, ("cluster", pa.int64()), ("rank", pa.int64()), ("similarity", pa.float64())]), "chunk", placed=True
)
"""The same for each row with an embedding: also its cluster, its place there by preference, its largest cosine to one before it."""


def array(table: pa.Table, name: str) -> NDArray[np.generic]:
    """A column without nulls."""
    return np.asarray(table.column(name).to_numpy())


def integers(table: pa.Table, name: str) -> Indices:
    """An integer column without nulls, as 64 bits."""
    return np.asarray(table.column(name).to_numpy(), np.int64)


def words(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.uint64]:
    """Several 64-bit columns as one array of shape (lines, columns)."""
    return np.stack([np.asarray(table.column(name).to_numpy(), np.uint64) for name in names], axis=1)


def grid_column(grids: Grids) -> pa.Array:
    """Colour grids as a binary column."""
    offsets = np.arange(len(grids) + 1, dtype=np.int32) * GRID_BYTES
    data = np.ascontiguousarray(grids)
    return pa.Array.from_buffers(pa.binary(), len(grids), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def grids_of(table: pa.Table) -> Grids:
    """A column `grid` without nulls, shape (lines, 192). Raises SchemaError for values of another length."""
    column = table.column("grid").combine_chunks()
    octets = np.frombuffer(b"".join(column.to_pylist()), np.uint8) if len(column) else np.zeros(0, np.uint8)
    if octets.size != len(column) * GRID_BYTES:
        raise SchemaError(f"colour_grid should hold {GRID_BYTES} bytes in each row: score the pool again")
    return octets.reshape(-1, GRID_BYTES)


def looks(table: pa.Table) -> tuple[Hashes, Grids]:
    """Columns `hash` and `grid` as arrays."""
    return np.asarray(table.column("hash").to_numpy(), np.uint64), grids_of(table)


def chunk_of(borders: tuple[int, ...], place: Indices) -> Indices:
    """Number of the chunk of parts that a place is in; `borders` are the first parts of the chunks."""
    return np.searchsorted(np.array(borders, np.int64), place >> 32, side="right").astype(np.int64) - 1


def pair_lines(borders: tuple[int, ...], one: Indices, other: Indices, distance: NDArray[np.float32], exact: bool) -> dict[str, object]:
    """Merged pairs as `PAIRS` holds them, the earlier row first."""
    first, second = np.minimum(one, other), np.maximum(one, other)
    chunk = chunk_of(borders, first)
    return {"chunk": chunk, "first": first, "second": second, "distance": distance, "exact": np.full(len(one), exact)}


# -- embeddings as a column


def vector_type(dim: int) -> pa.DataType:
    """Of a column of embeddings in an exchange; tables have no such type."""
    return pa.binary(2 * dim)


def vector_column(vectors: Stored) -> pa.Array:
    """Embeddings as a column."""
    data = pa.py_buffer(np.ascontiguousarray(vectors))
    return pa.Array.from_buffers(vector_type(vectors.shape[1]), len(vectors), [None, data])


def vectors_in(lines: pa.Table, dim: int) -> Iterator[Stored]:
    """Column `vector` as arrays, one for each of its pieces."""
    for piece in lines.column("vector").chunks:
        yield np.frombuffer(piece.buffers()[1], np.float16, len(piece) * dim, piece.offset * dim * 2).reshape(-1, dim)
