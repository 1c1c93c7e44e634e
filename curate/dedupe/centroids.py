"""Centroids of a pool's embeddings: fitted once, on rows that chance chose by their sample_id, and kept in the pool.

Rows that come later join the clusters that are there. The sample is in memory where the call stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate import cluster
from curate.dedupe.embeddings import read_embedded
from curate.dedupe.exchanges import vector_column, vector_type, vectors_in
from curate.dedupe.settings import Clustering, DedupeSettings
from curate.dedupe.tables import Inputs, chunks, parts_of
from curate.embeddings import Stored, dimension
from curate.errors import UsageError
from curate.shuffle import Gathered, Lines, Out, Shuffle, mixed
from curate.stage import Crew, PartTask, fingerprint
from curate.store import Pool

VERSION = 1


def known(pool: Pool, settings: DedupeSettings, inputs: Inputs) -> str | None:
    """File below the pool of the centroids that were fitted before under these settings, whatever rows there were."""
    found = pool.read_document(_document(settings))
    return str(found["file"]) if found is not None and found["identity"] == _identity(settings, inputs) else None


def fit(pool: Pool, settings: DedupeSettings, inputs: Inputs, crew: Crew, after_round: Callable[[], None]) -> str:
    """Fits them; returns their file. Raises UsageError when no row has an embedding."""
    said, identity = settings.clustering, _identity(settings, inputs)
    rows = sum(file.rows for file in inputs.fetched.files)
    count = said.clusters or max(1, round(rows / said.rows_per_cluster))
    shuffle = Shuffle(pool, f"fitted_{settings.name}", fingerprint(identity, *inputs.names()), rows, crew, after_round)
    points = _sample(pool, shuffle, inputs, count * said.sample_per_cluster / rows, said.seed)
    count = min(count, len(points))
    temporary = pool.temporary(".npy")
    np.save(temporary, cluster.fit(points, count, said.iterations, said.seed, spherical=True))
    file = pool.publish(temporary, "fitted", "centroids")
    pool.write_document(_document(settings), {"identity": identity, "file": file, "clusters": count, "sample": len(points)})
    shuffle.close()
    return file


def _document(settings: DedupeSettings) -> str:
    return f"fitted_groups_{settings.name}"


def _identity(settings: DedupeSettings, inputs: Inputs) -> str:
    """What centroids depend on beside the rows that there were; embeddings of one model have one name."""
    said = settings.clustering.model_dump(mode="json", include=set(Clustering.model_fields))
    names = inputs.scores.schema.names if inputs.scores and inputs.scores.schema else []
    return fingerprint(str(VERSION), settings.scores, *(name for name in names if name.startswith("clip_")), str(sorted(said.items())))


def _sample(pool: Pool, shuffle: Shuffle, inputs: Inputs, share: float, seed: int) -> Stored:
    """Embeddings of about this share of the rows, in the order of their lots."""
    assert inputs.scores is not None
    dim = dimension(pool, inputs.scores)
    tasks, _ = chunks(inputs, str(pool.path), shuffle.buckets)
    shuffle.run(Draw(inputs.scores.table, dim, min(share, 1.0), seed), tasks)
    lines = shuffle.read("drawn")
    if not len(lines):
        raise UsageError(f"no embedding of {inputs.scores.table} was drawn: give a larger  sample_per_cluster=")
    order = np.argsort(lines.column("lot").to_numpy(), kind="stable")
    return np.concatenate(list(vectors_in(lines, dim)))[order]


@dataclass(frozen=True)
class Draw:
    """Reads a chunk of parts: embeddings of rows whose sample_id draws a lot, seeded, that is low enough."""

    scores: str  # table
    dim: int
    share: float
    seed: int

    name = "sample of embeddings"
    reads: Sequence[str] = ()

    @property
    def emits(self) -> Mapping[str, Lines]:
        """Lots and embeddings."""
        return {"drawn": Lines(pa.schema([("lot", pa.uint64()), ("vector", vector_type(self.dim))]), "lot")}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One part after the other."""
        for part in parts_of(task):
            found = read_embedded(task, part, self.scores, None, self.dim)
            lot = mixed(found.names["id_low"] ^ mixed(np.array([self.seed + 1], np.uint64)))
            chosen = np.flatnonzero(lot / 2.0**64 < self.share) if self.share < 1 else np.arange(len(lot))
            out.emit("drawn", {"lot": lot[chosen], "vector": vector_column(found.vectors[chosen])})
