"""The stored embeddings of one part, and arrays of embeddings that somebody else computed."""

from __future__ import annotations

import glob
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.cluster import blocks
from curate.embeddings import COLUMN, Unit, stored, units
from curate.errors import InputError
from curate.parquet import read_columns
from curate.settings import Settings
from curate.store import Pool, Snapshot

_BLOCK = 8192


@dataclass(frozen=True)
class Vectors:
    """One part's embeddings as unit vectors, of those of its rows that have any: `place` says which."""

    part: int
    rows: int
    place: NDArray[np.int64]
    images: Unit
    texts: Unit


def read_part(pool: Pool, part: int, scores_file: str) -> Vectors:
    """The embeddings that a part's file of a table of scores names."""
    told = read_columns(scores_file, [COLUMN])
    found = stored(pool, told, part)
    if found is None:
        none = np.zeros((0, 0), np.float32)
        return Vectors(part, len(told), np.zeros(0, np.int64), none, none)
    place = np.flatnonzero([line.any() for line in found])
    return Vectors(part, len(told), place, units(found[place, 0]), units(found[place, 1]))


def embedded(found: Snapshot) -> str | None:
    """The column of a table of scores that is null where a row has no embedding; None when the table holds no embeddings."""
    names: list[str] = [] if found.schema is None else found.schema.names
    return next((name for name in names if name.startswith("clip_") and COLUMN in names), None)


class Reference(Settings):
    """Embeddings from elsewhere, by the same model as the pool's: .npy or .npz files of shape (n, dim), float16, 32 or 64.

    `path` may be a glob; `array` names the array of an .npz that holds several. A .npy is mapped, an .npz read whole.
    """

    path: str = Field(min_length=1)
    array: str = ""

    def files(self) -> list[Path]:
        """All files, in the order of their names. Raises InputError when there is none."""
        found = sorted(Path(name) for name in glob.glob(self.path)) if glob.has_magic(self.path) else [Path(self.path)]
        if not found:
            raise InputError(f"{self.path}: no file is called so")
        return found

    def sha256(self) -> str:
        """Of the files' bytes, wherever they lie."""
        digest = hashlib.sha256(self.array.encode())
        for path in self.files():
            with _readable(str(path)), path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def check(self, dim: int) -> int:
        """How many vectors there are. Raises InputError, one line with file and row, when one cannot be compared with the pool's."""
        count = 0
        for path in self.files():
            vectors = self._open(path)
            where = f"{path}{f', array {self.array!r}' if self.array else ''}"
            check_vectors(where, vectors, dim)
            count += len(vectors)
        if not count:
            raise InputError(f"{self.path}: holds no vector")
        return count

    def units(self) -> Iterator[Unit]:
        """All vectors at length 1, block by block."""
        for path in self.files():
            yield from (units(block) for _, block in blocks(self._open(path), _BLOCK))

    def read(self) -> NDArray[np.float32]:
        """All vectors in memory, with the lengths that they have."""
        return np.concatenate([np.asarray(self._open(path), np.float32) for path in self.files()])

    def _open(self, path: Path) -> NDArray[Any]:
        return load_array(path, str(path), self.array)


def check_vectors(where: str, vectors: NDArray[Any], dim: int) -> None:
    """Raises InputError, one line that says where, unless these are (n, dim) floats that all have a direction."""
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise InputError(f"{where}: {vectors.dtype} of shape {vectors.shape}, where floats of shape (n, {dim}) are wanted")
    if vectors.shape[1] != dim:
        raise InputError(f"{where}: vectors of {vectors.shape[1]} dimensions, the pool's have {dim}: embed them with the same model")
    for start, block in blocks(vectors, _BLOCK):
        lengths = np.linalg.norm(block, axis=1)
        bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(bad):
            raise InputError(f"{where}: row {start + bad[0]} is zero, NaN or infinite: leave it out")


def load_array(file: Any, shown: str, array: str) -> NDArray[Any]:
    """An array of a .npy or .npz, by path (a .npy is then mapped) or open file. Raises InputError, one line that says `shown`."""
    with _readable(shown):
        found = np.load(file, mmap_mode="r" if isinstance(file, str | Path) else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            if array:
                raise InputError(f"{shown}: a single array, so it has none that is called {array!r}")
            return found
        with found:
            return np.asarray(found[_named(shown, array, list(found.files))])


def _named(shown: str, array: str, names: list[str]) -> str:
    chosen = array or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        asked = f"no array {array!r}" if array else "several arrays"
        raise InputError(f"{shown}: {asked}; there are {', '.join(names) or 'none'}: name one  (array=…)")
    return chosen


@contextmanager
def _readable(shown: str) -> Iterator[None]:
    """Turns what NumPy says of a file that it cannot read into one line."""
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{shown}: cannot be read as .npy or .npz ({cause})") from None
