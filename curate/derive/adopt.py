"""Embeddings from elsewhere become a pool's own: arrays whose lines are those of Parquet files, brought into the order of its parts.

Arrays lie as DataComp publishes them, in an .npz beside each Parquet file, or as clip-retrieval leaves them, one .npy for each.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from curate.derive.vectors import check_vectors, load_array
from curate.embeddings import units
from curate.errors import InputError
from curate.plan.sources import InputFile
from curate.progress import Progress
from curate.store import Pool, Snapshot


@dataclass(frozen=True)
class Arrays:
    """For each Parquet file, where its image and its text embeddings are."""

    tables: tuple[InputFile, ...]
    images: tuple[InputFile, ...]
    texts: tuple[InputFile, ...]
    names: tuple[str, str]  # of the arrays in an .npz, empty for .npy

    @classmethod
    def beside(cls, tables: Sequence[InputFile], images: str, texts: str) -> Arrays:
        """`images` and `texts` each name an array of the .npz beside each table, or .npy files, in the tables' order.

        Raises InputError for a file that is not there, or too few of them.
        """
        found = [_files(tables, said) for said in (images, texts)]
        names = ["" if said.endswith(".npy") else said for said in (images, texts)]
        return cls(tuple(tables), found[0], found[1], (names[0], names[1]))

    def identity(self) -> list[str]:
        """Changes when one of the files does."""
        return [*self.names, *(file.fingerprint() for file in dict.fromkeys([*self.images, *self.texts]))]

    def load(self, number: int, rows: int, dim: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image and text embeddings (rows, dim) of one table. Raises InputError, one line with file, array and row."""
        image, text = (_load(file, name) for file, name in zip((self.images[number], self.texts[number]), self.names, strict=True))
        for file, name, vectors in ((self.images[number], self.names[0], image), (self.texts[number], self.names[1], text)):
            where = f"{file.name}{f', array {name!r}' if name else ''}"
            check_vectors(where, vectors, dim or (image.shape[-1] if image.ndim else 0))
            if len(vectors) != rows:
                raise InputError(f"{where}: {len(vectors):,} vectors for the {rows:,} rows of {self.tables[number].name}")
        return image, text


@dataclass(frozen=True)
class Adopted:
    """The pool's rows with what was found for them, in the order of parts and rows: a file of embeddings for each part, and cosines."""

    files: Mapping[int, str]
    cosines: Mapping[int, pa.Array]


def adopt(pool: Pool, name: str, rows: Snapshot, arrays: Arrays, places: Iterable[pa.RecordBatch], progress: Progress) -> Adopted:
    """Publishes `embeddings/<name>` of each part, (rows, 2, dim) float16, image first; rows that nothing was found for are zero.

    `places` are lines (part, row, file, line), sorted by file: which line of which table a row of the pool is. One table's
    arrays are in memory at a time; all of them lie once more in the pool's tmp folder until their parts are written.
    """
    starts = dict(zip(rows.by_part, np.cumsum([0, *(file.rows for file in rows.files)]).tolist(), strict=False))
    temporary, whole = pool.temporary(".npy"), None
    try:
        for number, lines in _by_file(places):
            progress.advance("embeddings")
            with arrays.tables[number].seekable() as stream:
                count = pq.ParquetFile(stream).metadata.num_rows
            image, text = arrays.load(number, count, None if whole is None else whole.shape[2])
            if whole is None:
                whole = np.lib.format.open_memmap(temporary, "w+", np.float16, (sum(file.rows for file in rows.files), 2, image.shape[1]))
            at = np.array([starts[part] for part in lines["part"].to_pylist()]) + lines["row"].to_numpy()
            for side, vectors in enumerate((image, text)):
                whole[at, side] = units(vectors[lines["line"].to_numpy()])
        return _published(pool, name, rows, starts, whole)
    finally:
        temporary.unlink(missing_ok=True)


def _published(pool: Pool, name: str, rows: Snapshot, starts: Mapping[int, int], whole: NDArray[np.float16] | None) -> Adopted:
    files, cosines = {}, {}
    for file in rows.files:
        mine = np.zeros((file.rows, 2, 1), np.float16) if whole is None else whole[starts[file.part] : starts[file.part] + file.rows]
        full = np.asarray(mine, np.float32)
        cosine = np.clip((full[:, 0] * full[:, 1]).sum(axis=1), -1, 1)
        cosines[file.part] = pa.array(cosine, pa.float32(), mask=~mine.any(axis=(1, 2)))
        if mine.any():
            temporary = pool.temporary(".npy")
            np.save(temporary, mine)
            files[file.part] = pool.publish(temporary, f"embeddings/{name}", f"{file.part:05d}")
    return Adopted(files, cosines)


def _by_file(places: Iterable[pa.RecordBatch]) -> Iterable[tuple[int, pa.RecordBatch]]:
    """Lines of one file at a time; a file may come in several pieces."""
    for batch in places:
        numbers = batch["file"].to_numpy()
        borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for begin, end in itertools.pairwise(borders):
            if end > begin:
                yield int(numbers[begin]), batch.slice(begin, end - begin)


def _files(tables: Sequence[InputFile], said: str) -> tuple[InputFile, ...]:
    if not said.endswith(".npy"):
        return tuple(_array_file(table, posixpath.splitext(table.path)[0] + ".npz") for table in tables)
    filesystem, path = fsspec.core.url_to_fs(said)
    found = sorted(filesystem.glob(path)) if any(sign in path for sign in "*?[") else [path]
    if len(found) != len(tables):
        raise InputError(f"{said}: {len(found)} files for {len(tables)} tables: each table has one, in the order of their names")
    return tuple(_array_file(replace(table, filesystem=filesystem), one) for table, one in zip(tables, found, strict=True))


def _array_file(table: InputFile, path: str) -> InputFile:
    try:
        size = int(table.filesystem.info(path).get("size") or 0)
    except OSError:
        raise InputError(f"{path}: there is no such file beside {table.name}") from None
    return replace(table, name=posixpath.basename(path), path=path, size_bytes=size, compression=None, version="")


def _load(file: InputFile, array: str) -> NDArray[Any]:
    if isinstance(file.filesystem, LocalFileSystem):
        return load_array(file.path, file.name, array)
    with file.raw() as stream:
        return load_array(stream, file.name, array)
