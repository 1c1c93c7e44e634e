"""Semantic duplicates, as rounds of a shuffle: rows meet at their nearest centroid, and each cluster is compared in itself.

A task holds the lines of its bucket without their vectors; these lie in a file of its own and are read as they are needed, so
that a cluster may have any number of rows.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curate.dedupe import exchanges as ex
from curate.dedupe.embeddings import lines_of, read_embedded, score_column
from curate.dedupe.exchanges import Indices, vector_type, vectors_in
from curate.dedupe.grouping import firsts, ranks
from curate.dedupe.semdedup import Before, near_before
from curate.dedupe.settings import DedupeSettings, SemanticMatching
from curate.dedupe.tables import Inputs, chunks, parts_of, tell_rows
from curate.dedupe.vectors import cosines, nearest
from curate.embeddings import Stored, dimension
from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import PartTask
from curate.store import Pool


def prune(pool: Pool, shuffle: Shuffle, inputs: Inputs, settings: DedupeSettings, centroids: str) -> dict[str, float]:
    """Leaves `parts`, `rows` and `pairs`, as grouping by pictures does; returns how many rows, pairs and groups there are."""
    assert inputs.scores is not None
    score = score_column(inputs, settings.semantic.score) if settings.semantic.keep == "best" else None
    tasks, borders = chunks(inputs, str(pool.path), shuffle.buckets)
    shuffle.run(Assign(inputs.scores.table, score, centroids, dimension(pool, inputs.scores)), tasks)
    found = shuffle.run(Prune(borders, settings.semantic))
    shuffle.drop("embedded")
    return found.counters | {"largest": found.most.get("largest", 0)}


@dataclass(frozen=True)
class Assign:
    """Reads a chunk of parts: every row with an embedding goes to its nearest centroid."""

    scores: str  # table
    score: str | None  # its column that says which rows are best
    centroids: str  # file below the pool
    dim: int

    name = "nearest centroids"
    reads: Sequence[str] = ()

    @property
    def emits(self) -> Mapping[str, Lines]:
        """Rows by cluster; `closeness` is the cosine to its centroid."""
        told = [("place", pa.int64()), *((name, pa.uint64()) for name in ex.ID), ("closeness", pa.float64()), ("score", pa.float64())]
        return {
            "embedded": Lines(pa.schema([("cluster", pa.int64()), *told, ("vector", vector_type(self.dim))]), "cluster"),
            "parts": ex.PARTS,
        }

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One part after the other."""
        centroids = np.array(Pool.open(task.pool).array(self.centroids))
        wanted = self.emits["embedded"].schema.names
        for part in parts_of(task):
            found = read_embedded(task, part, self.scores, self.score, self.dim)
            cluster, closeness = nearest(found.vectors, centroids)
            more = {"cluster": cluster, "closeness": closeness, "score": found.score}
            out.emit("embedded", lines_of(found.names, more, found.vectors, wanted))
            tell_rows(task, part, found.rows, out)


@dataclass(frozen=True)
class Prune:
    """Says of every row of a cluster which earlier one it is near to, in the order in which rows are preferred."""

    borders: tuple[int, ...]
    settings: SemanticMatching

    name = "near embeddings"
    reads: Sequence[str] = ("embedded",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"rows": ex.CLUSTERED, "pairs": ex.PAIRS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of clusters."""
        largest = 0
        with _held(given["embedded"], Pool.open(task.pool)) as (lines, stored):
            number, closeness = ex.integers(lines, "cluster"), ex.array(lines, "closeness").astype(np.float64)
            order = np.lexsort((*(ex.array(lines, name) for name in ex.ID[::-1]), self._preference(lines), number))
            for low, high in itertools.pairwise(np.flatnonzero(np.diff(number[order], prepend=-1, append=-1)).tolist()):
                members = order[low:high]
                before = near_before(stored, members, closeness, self.settings.epsilon)
                largest = max(largest, self._tell(lines.take(pa.array(members)), before, out))
                self._prove(stored, members, ex.integers(lines, "place"), before, out)
            out.count("rows", len(order))
        out.count("largest", largest)

    def _preference(self, lines: pa.Table) -> Indices:
        """Ascending: the most preferred first; rows without a score last, equal ones by sample_id."""
        closeness, score = ex.array(lines, "closeness").astype(np.float64), ex.array(lines, "score").astype(np.float64)
        by = {"hard": closeness, "easy": -closeness, "best": np.where(np.isnan(score), np.inf, -score)}
        return by[self.settings.keep]

    def _tell(self, members: pa.Table, before: Before, out: Out) -> int:
        """Emits the group of every row; returns the size of the largest."""
        of = np.unique(before.roots(), return_inverse=True)[1]
        sizes, ids = np.bincount(of), ex.words(members, ex.ID)
        named = ids[firsts(of, ranks(ids))][of]
        place = ex.integers(members, "place")
        told = {"chunk": ex.chunk_of(self.borders, place), "place": place, **dict(zip(ex.ID, named.T, strict=True)), "size": sizes[of]}
        more = {"cluster": ex.integers(members, "cluster"), "rank": np.arange(len(of)), "similarity": before.similarity}
        out.emit("rows", {**told, "exact": np.zeros(len(of), np.bool_), **more})
        out.count("groups", int((sizes > 1).sum()))
        out.count("grouped rows", int(sizes[sizes > 1].sum()))
        return int(sizes.max())

    def _prove(self, stored: Stored, members: Indices, place: Indices, before: Before, out: Out) -> None:
        """A pair for each row that is near an earlier one."""
        near = np.flatnonzero(before.parent >= 0)
        one, other = members[before.parent[near]], members[near]
        for at in range(0, len(near), 1 << 14):
            here = slice(at, at + (1 << 14))
            distance = (1 - cosines(stored[one[here]], stored[other[here]])).astype(np.float32)
            out.emit("pairs", ex.pair_lines(self.borders, place[one[here]], place[other[here]], distance, exact=False))
        out.count("near pairs", len(near))


@contextmanager
def _held(given: Gathered, pool: Pool) -> Iterator[tuple[pa.Table, Stored]]:
    """A bucket's lines without their vectors, and the vectors, mapped from a file that ends with the task."""
    dim, pieces = given.schema.field("vector").type.byte_width // 2, [given.schema.empty_table().drop_columns(["vector"])]
    with tempfile.TemporaryFile(dir=pool.temporary("").parent) as file:
        for chunk in given.chunks():
            for vectors in vectors_in(chunk, dim):
                file.write(vectors.data)
            pieces.append(chunk.drop_columns(["vector"]))
        file.flush()
        lines = pa.concat_tables(pieces).combine_chunks()
        yield lines, np.memmap(file, np.float16, "r", shape=(len(lines), dim)) if len(lines) else np.zeros((0, dim), np.float16)
