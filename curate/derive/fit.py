"""What all parts are compared with is found once for a table: rows that make up batches, centroids of clusters.

It stands in the document `fitted_<table>` and, for centroids, in `fitted/`: parts that come later are compared with the same. Of
drawn rows only their places are kept; embeddings are read anew for each run, so that a row that was taken down is gone here too.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.catalog.sql import query
from curate.catalog.views import NO_POLICY, quoted
from curate.cluster import fit
from curate.derive.clip_loss import DrawnClipLoss, NegClipLoss
from curate.derive.clusters import Clusters, FittedClusters, named_by
from curate.derive.heads import HeadMeasure
from curate.derive.measure import Measure
from curate.derive.phase import DerivePhase
from curate.derive.settings import DeriveSettings
from curate.derive.vectors import Reference, embedded
from curate.embeddings import COLUMN, dimension, stored
from curate.errors import IdentityError, UsageError
from curate.parquet import read_columns
from curate.progress import Progress
from curate.stage import fingerprint
from curate.store import Pool, Snapshot

Places = NDArray[np.int32]
"""(n, 2): part and row."""


@dataclass(frozen=True)
class _Source:
    """The table whose embeddings are read."""

    pool: Pool
    table: Snapshot
    column: str
    dim: int

    def draw(self, count: int, seed: str, where: str = "") -> Places:
        """At most `count` of the rows that have an embedding, by the hash of sample_id and seed."""
        found = query(
            self.pool,
            f"SELECT part, row FROM samples WHERE {quoted(self.column)} IS NOT NULL AND ({where or 'true'})"
            f" ORDER BY md5(concat_ws('/', sample_id, '{seed}')), sample_id, part, row LIMIT {count}",
            NO_POLICY,
        )
        return np.stack([found[name].to_numpy() for name in ("part", "row")], axis=1)

    def gather(self, places: Places, into: NDArray[np.float16], which: slice | int) -> None:
        """Copies the embeddings of these rows, part by part; of a part that has none any more the lines stay zero."""
        order = np.argsort(places[:, 0], kind="stable")
        borders = np.flatnonzero(np.diff(places[order, 0])) + 1
        for lines in np.split(order, borders) if len(order) else []:
            part = int(places[lines[0], 0])
            found = stored(self.pool, read_columns(self.table.path_of(part), [COLUMN]), part)
            if found is not None:
                into[lines] = found[places[lines, 1]][:, which]


@contextmanager
def fitted_phase(pool: Pool, settings: DeriveSettings, progress: Progress) -> Iterator[DerivePhase]:
    """The phase for these settings; what it needs besides lies in the pool's tmp folder for as long as the block runs.

    Raises UsageError for a pool without embeddings or without enough of them, InputError for a reference that does not fit.
    """
    pool.require_disk("deriving scores from embeddings")
    source, table = _source(pool, settings.of), f"scores_{settings.name}"
    for reference in _references(settings):
        reference.check(source.dim)
    heads = [HeadMeasure(column, head) for column, head in settings.heads.items()]
    for head in heads:
        head.check(source.dim)
    with contextlib.ExitStack() as stack:
        measures: list[Measure] = [*heads]
        if settings.clusters is not None:
            measures.append(_clusters(source, settings.clusters, table, progress))
        if settings.normsim is not None:
            measures.append(settings.normsim)
        if settings.neg_clip_loss is not None:
            measures.append(stack.enter_context(_batches(source, settings.neg_clip_loss, table)))
        phase = DerivePhase(settings.name, source.table.table, tuple(measures))
        _require_free(pool, phase)
        yield phase


def _require_free(pool: Pool, phase: DerivePhase) -> None:
    """Raises UsageError where another table of scores has a column of the phase: `samples` would show only one of them."""
    for table in pool.tables():
        names = pool.snapshot(table).schema if table.startswith("scores_") and table != phase.table else None
        for taken in sorted({name for measure in phase.measures for name in measure.adds.names} & set(names.names if names else ())):
            raise UsageError(f"table {table!r} has a column {taken!r} already: call it otherwise  (….column=…, or heads.NAME.path=…)")


def _source(pool: Pool, name: str) -> _Source:
    """The named table of scores, or the only one with embeddings. Raises UsageError."""
    tables = [pool.snapshot(table) for table in pool.tables() if table.startswith("scores_")]
    holders = {found.table.removeprefix("scores_"): (found, column) for found in tables if (column := embedded(found))}
    wanted = name or (next(iter(holders)) if len(holders) == 1 else "")
    if wanted not in holders:
        there = f"embeddings of this pool are in {', '.join(holders)}" if holders else "no table of this pool holds embeddings"
        raise UsageError(f"{there}: {'name one  (--of)' if holders else 'score it with a CLIP model first'}")
    found, column = holders[wanted]
    return _Source(pool, found, column, dimension(pool, found))


def _references(settings: DeriveSettings) -> list[Reference]:
    clusters, normsim = settings.clusters, settings.normsim
    said = [clusters.reference if clusters else None, clusters.centroids if clusters else None, normsim.target if normsim else None]
    return [one for one in said if one is not None]


# -- batches


@contextmanager
def _batches(source: _Source, settings: NegClipLoss, table: str) -> Iterator[DrawnClipLoss]:
    """Draws the batches unless they are, and brings their embeddings together in two files."""
    drawn = _drawn(source, settings, table)
    file = source.pool.temporary(".batches")
    made = [Path(f"{file}.npy"), Path(f"{file}.rows.npy")]
    try:
        vectors = np.lib.format.open_memmap(made[0], "w+", np.float16, (*drawn.shape[:2], 2, source.dim))
        for batch, places in zip(vectors, drawn, strict=True):
            source.gather(places, batch, slice(None))
        vectors.flush()
        np.save(made[1], drawn)
        yield DrawnClipLoss(settings, str(file), hashlib.sha256(drawn.tobytes()).hexdigest())
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _drawn(source: _Source, settings: NegClipLoss, table: str) -> NDArray[np.int32]:
    """(repeats, size, 2): the rows of each batch."""
    said = settings.model_dump(mode="json", exclude={"temperature"})
    known = _known(source.pool, table, "batches", said)
    if known is None:
        batches = [source.draw(settings.batch_size, f"{settings.seed}/{number}") for number in range(settings.repeats)]
        if len(batches[0]) < 2:
            raise UsageError(f"a contrastive loss needs two rows, and table {source.table.table!r} has {len(batches[0])} with an embedding")
        known = {"places": np.stack(batches).tolist()}
        source.pool.write_document(f"fitted_{table}_batches", {"settings": said, **known})
    return np.asarray(known["places"], np.int32)


# -- clusters


def _clusters(source: _Source, settings: Clusters, table: str, progress: Progress) -> FittedClusters:
    """Fits the clusters unless they are."""
    shown = {"reference": settings.reference.sha256(), "centroids": settings.centroids.sha256() if settings.centroids else ""}
    said = {**settings.model_dump(mode="json", exclude={"reference", "centroids"}), **shown}
    known = _known(source.pool, table, "clusters", said)
    if known is None:
        progress.start("fit", settings.count, "clusters")
        centroids = settings.centroids.read() if settings.centroids else _fit(source, settings)
        temporary = source.pool.temporary(".npy")
        np.save(temporary, centroids)
        file = source.pool.publish(temporary, "fitted", "centroids")
        known = {"file": file, "named": list(named_by(settings.reference, centroids))}
        source.pool.write_document(f"fitted_{table}_clusters", {"settings": said, **known})
        progress.advance("fit", len(centroids))
        progress.finish("fit")
    fitted = fingerprint(str(known["file"]), *map(str, known["named"]))
    return FittedClusters(str(source.pool.path / str(known["file"])), tuple(known["named"]), settings.column, fitted)


def _fit(source: _Source, settings: Clusters) -> NDArray[np.float32]:
    places = source.draw(settings.sample, str(settings.seed), settings.where)
    if len(places) < settings.count:
        raise UsageError(f"{settings.count:,} clusters need as many images, and there are {len(places):,}: say fewer  (clusters.count=…)")
    temporary = source.pool.temporary(".npy")
    try:
        images = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(places), source.dim))
        source.gather(places, images, 0)
        return fit(images, settings.count, settings.iterations, settings.seed)
    finally:
        temporary.unlink(missing_ok=True)


# -- documents


def _known(pool: Pool, table: str, kind: str, said: Mapping[str, object]) -> dict[str, Any] | None:
    """What was fitted under these settings before. Raises IdentityError when the table was computed with others."""
    found = pool.read_document(f"fitted_{table}_{kind}")
    if found is None or found["settings"] == said:
        return found
    if pool.snapshot(table).files:
        raise IdentityError(f"table {table!r} of this pool was derived with other {kind}: give those settings again, or another name")
    return None
