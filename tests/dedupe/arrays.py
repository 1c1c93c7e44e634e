"""Duplicate search over arrays: the real rounds on a small pool, in this process, with as many buckets as a test wants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.dedupe import exchanges as ex
from curate.dedupe.grouping import group as group_rounds
from curate.dedupe.settings import DedupeSettings
from curate.shuffle import Shuffle
from curate.stage import Crew, PartReport, PartTask, Phase
from curate.store import Pool

PART_ROWS = 100


def inline(phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport]:
    """An engine without workers."""
    with phase.open() as do:
        yield from map(do, tasks)


@dataclass(frozen=True)
class Pictures:
    """One entry per picture: `sample_id` (n, 2) and `sha256` (n, 4) words; `hashes` and `grids` of the pictures `hashed` only."""

    sample_id: np.ndarray
    sha256: np.ndarray
    hashed: np.ndarray
    hashes: np.ndarray
    grids: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Merged pairs, `first < second`, sorted."""

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    exact: np.ndarray


@dataclass(frozen=True)
class Groups:
    """For each picture the member with the smallest sample_id of its group, the group's size, whether all bytes are equal."""

    representative: np.ndarray
    size: np.ndarray
    exact: np.ndarray
    evidence: Evidence


def group(pictures: Pictures, settings: DedupeSettings, buckets: int = 1) -> Groups:
    """What the rounds make of the pictures; parts have 100 rows."""
    count = len(pictures.sample_id)
    parts = -(-count // PART_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        shuffle = Shuffle(Pool.create(f"{folder}/pool"), "test", "test", max(count, 1), Crew(inline, -(-max(count, 1) // buckets)))
        borders = tuple(range(0, max(parts, 1), -(-max(parts, 1) // shuffle.buckets)))
        shuffle.put("pictures", ex.PICTURES, _lines(pictures))
        group_rounds(shuffle, borders, settings)
        rows, pairs = shuffle.read("rows").sort_by("place"), shuffle.read("pairs")
        shuffle.close()
    return _groups(pictures, rows, pairs.sort_by([("first", "ascending"), ("second", "ascending")]))


def _lines(pictures: Pictures) -> pa.Table:
    count = len(pictures.sample_id)
    hashed, hashes, grids = np.zeros(count, np.bool_), np.zeros(count, np.uint64), np.full(count, None, object)
    hashed[pictures.hashed], hashes[pictures.hashed] = True, pictures.hashes
    for at, grid in zip(pictures.hashed.tolist(), pictures.grids, strict=True):
        grids[at] = grid.tobytes()
    columns = {name: pictures.sha256[:, at] for at, name in enumerate(ex.SHA)} | {
        name: pictures.sample_id[:, at] for at, name in enumerate(ex.ID)
    }
    place = _place(np.arange(count))
    return pa.table({**columns, "place": place, "shown": hashed, "hash": hashes, "grid": pa.array(grids, pa.binary())}, ex.PICTURES.schema)


def _place(index: np.ndarray) -> np.ndarray:
    return (index // PART_ROWS << 32) + index % PART_ROWS


def _index(place: np.ndarray) -> np.ndarray:
    return (place >> 32) * PART_ROWS + (place & 0xFFFFFFFF)


def _groups(pictures: Pictures, rows: pa.Table, pairs: pa.Table) -> Groups:
    assert _index(ex.integers(rows, "place")).tolist() == list(range(len(pictures.sample_id)))
    of_id = {tuple(words): at for at, words in enumerate(pictures.sample_id.tolist())}
    representative = np.array([of_id[tuple(words)] for words in ex.words(rows, ex.ID).tolist()], np.int64)
    first, second = (_index(ex.integers(pairs, name)) for name in ("first", "second"))
    evidence = Evidence(first, second, ex.integers(pairs, "distance"), np.asarray(pairs.column("exact").to_numpy(), np.bool_))
    return Groups(representative, ex.integers(rows, "size"), np.asarray(rows.column("exact").to_numpy(), np.bool_), evidence)
