"""Copies by descriptor, as rounds of a shuffle: pictures meet in the clusters of their nearest centroids, then each pair's pixels decide.

Every picture is at home in the cluster of its nearest centroid and visits those of the next ones: pairs are compared that share a
cluster in which one of them is at home. A picture brings at most `CROWD` pairs of a cluster along, its nearest, so that a crowd (blank
pages, one template) stays linear; its members are held together by each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedupe import exchanges as ex
from curate.dedupe.alignment import align
from curate.dedupe.components import EDGES, both_ways
from curate.dedupe.exchanges import Indices, vector_type, vectors_in
from curate.dedupe.settings import CopyMatching
from curate.embeddings import Unit, units
from curate.media.image import MediaError, Rgb, decode_rgb
from curate.objects import read_span
from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import PartTask
from curate.store import Pool

CROWD = 16
_STRIP = 1024  # rows at home whose cosines to the rest of the cluster are in memory together
_HELD = 512  # decoded pictures
SPAN = (("tar_file", pa.string()), ("tar_offset", pa.int64()), ("tar_size", pa.int64()))
_MET = [("place", pa.int64()), ("other", pa.int64()), *((f"{side}{name}", kind) for side in ("", "other_") for name, kind in SPAN)]
MET = Lines(pa.schema(_MET), "place")
"""Pairs that a descriptor names, the smaller place first, with where both pictures lie; a pair may stand there more than once."""

Span = tuple[str, int, int]


def pictures(dim: int) -> Lines:
    """Every row with an image; its descriptor where `shown`."""
    named = [(name, pa.uint64()) for name in (*ex.SHA, *ex.ID)]
    return Lines(pa.schema([*named, ("place", pa.int64()), ("shown", pa.bool_()), *SPAN, ("vector", vector_type(dim))]), "a")


def shown(dim: int) -> Lines:
    """Leaders that have a descriptor."""
    return Lines(pa.schema([("place", pa.int64()), *SPAN, ("vector", vector_type(dim))]), "place")


def dimension_of(pool: Pool, centroids: str) -> int:
    """Of the descriptors, by the centroids that were fitted on them."""
    return int(pool.array(centroids).shape[1])


def near_copies(shuffle: Shuffle, borders: tuple[int, ...], settings: CopyMatching, centroids: str) -> int:
    """Compares the pictures in `shown`, which it uses up; adds to `pairs` and `edges`, returns how many pairs are copies."""
    dim = dimension_of(shuffle.pool, centroids)
    shuffle.run(Visit(centroids, settings.visits, dim))
    shuffle.drop("shown")
    shuffle.run(Meet(settings.cosine, dim))
    shuffle.drop("visits")
    found = shuffle.run(BearOut(borders, settings))
    shuffle.drop("met")
    return int(found.counters.get("near pairs", 0))


@dataclass(frozen=True)
class Visit:
    """Sends every picture to the clusters of its nearest centroids."""

    centroids: str  # file below the pool
    visits: int
    dim: int

    name = "pictures by clusters"
    reads: Sequence[str] = ("shown",)

    @property
    def emits(self) -> Mapping[str, Lines]:
        """Pictures by cluster, and whether they are at home there."""
        return {"visits": Lines(pa.schema([("cluster", pa.int64()), ("home", pa.bool_()), *shown(self.dim).schema]), "cluster")}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of pictures."""
        centroids = np.array(Pool.open(task.pool).array(self.centroids))
        count = min(1 + self.visits, len(centroids))
        for chunk in given["shown"].chunks():
            for low in range(0, len(chunk), _STRIP):
                lines = chunk.slice(low, _STRIP).combine_chunks()
                vectors = np.concatenate(list(vectors_in(lines, self.dim)))
                order = np.argsort(-(units(vectors) @ centroids.T), axis=1, kind="stable")[:, :count]
                for turn in range(count):
                    where = {"cluster": pa.array(order[:, turn].astype(np.int64)), "home": pa.array(np.full(len(lines), turn == 0))}
                    out.emit("visits", pa.table({**where, **{name: lines.column(name) for name in lines.schema.names}}))


@dataclass(frozen=True)
class Meet:
    """Pairs the pictures of a cluster whose descriptors are near."""

    cosine: float
    dim: int

    name = "near descriptors"
    reads: Sequence[str] = ("visits",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"met": MET})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of clusters; of each, the vectors are in memory."""
        lines = given["visits"].table("cluster", "place")
        if not len(lines):
            return
        vectors, spans = np.concatenate(list(vectors_in(lines, self.dim))), lines.drop_columns(["vector"])
        number = ex.integers(lines, "cluster")
        borders = np.flatnonzero(np.diff(number, prepend=-1, append=-1)).tolist()
        for low, high in itertools.pairwise(borders):
            for one, other in self._near(units(vectors[low:high]), ex.array(lines, "home")[low:high].astype(np.bool_)):
                out.emit("met", _met(spans, low + one, low + other))

    def _near(self, unit: Unit, home: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices]]:
        """Positions of pairs, the first one at home; of two at home the first is before the second."""
        rows = np.flatnonzero(home)
        for low in range(0, len(rows), _STRIP):
            strip = rows[low : low + _STRIP]
            cosine = unit[strip] @ unit.T
            cosine[(np.arange(len(unit)) <= strip[:, None]) & home] = -2
            most = min(CROWD, len(unit))
            nearest = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
            at, turn = np.nonzero(np.take_along_axis(cosine, nearest, axis=1) >= self.cosine)
            yield strip[at], nearest[at, turn]


def _met(spans: pa.Table, one: Indices, other: Indices) -> pa.Table:
    """Pairs of lines, the one with the smaller place first."""
    place = ex.integers(spans, "place")
    swap = place[one] > place[other]
    first, second = spans.take(pa.array(np.where(swap, other, one))), spans.take(pa.array(np.where(swap, one, other)))
    sides = {f"{side}{name}": ends.column(name) for side, ends in (("", first), ("other_", second)) for name, _ in SPAN}
    return pa.table({"place": first.column("place"), "other": second.column("place"), **sides}, MET.schema)


@dataclass(frozen=True)
class BearOut:
    """Looks at the pixels of both: is one a copy of the other, whole or cut at its borders?"""

    borders: tuple[int, ...]
    settings: CopyMatching

    name = "aligned pictures"
    reads: Sequence[str] = ("met",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"pairs": ex.PAIRS, "edges": EDGES})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of pairs; they come in the order of places, so that most pictures are decoded once."""
        pool = Pool.open(task.pool)
        decoded = lru_cache(_HELD)(lambda span: _pixels(pool, span))
        pairs = given["met"].table("place", "other")
        place, other = ex.integers(pairs, "place"), ex.integers(pairs, "other")
        new = np.flatnonzero((np.diff(place, prepend=-1) != 0) | (np.diff(other, prepend=-1) != 0))
        found = [self._correlation(*(decoded(span) for span in _ends(pairs, at))) for at in new.tolist()]
        correlation = np.array(found, np.float32)
        same = correlation >= self.settings.correlation
        one, two = place[new[same]], other[new[same]]
        out.emit("pairs", ex.pair_lines(self.borders, one, two, np.maximum(1 - correlation[same], 0), exact=False))
        out.emit("edges", both_ways(one, two))
        out.count("near pairs", len(one))

    def _correlation(self, one: Rgb | None, other: Rgb | None) -> float:
        """Of the aligned pictures; -1 where colours differ, or one of them cannot be decoded."""
        if one is None or other is None:
            return -1.0
        found = align(one, other, self.settings.least_share)
        return found.correlation if found.chroma <= self.settings.chroma_tolerance else -1.0


def _ends(pairs: pa.Table, at: int) -> list[Span]:
    return [tuple(pairs.column(f"{side}{name}")[at].as_py() for name, _ in SPAN) for side in ("", "other_")]


def _pixels(pool: Pool, span: Span) -> Rgb | None:
    file, offset, size = span
    try:
        return decode_rgb(read_span(pool.path / file, offset, size))
    except MediaError:
        return None
