"""Brings a table of phrases up to date: all captions are counted anew whenever the pool's rows change."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from curate import schema as schemas
from curate.dedupe.tables import Inputs
from curate.derive.phrases import Phrases, Write, phrase_rounds
from curate.errors import IdentityError, UsageError
from curate.lease import Run
from curate.progress import Progress
from curate.shuffle import Shuffle
from curate.stage import Crew, fingerprint, identity_of
from curate.store import Pool

VERSION = 1


@dataclass(frozen=True)
class PhrasesReport:
    """Rows with a caption that were told of its phrases; not `recomputed` when the table was up to date."""

    table: str
    parts: int
    rows: int
    recomputed: bool


def count_phrases(pool: Pool, run: Run, name: str, settings: Phrases, crew: Crew, progress: Progress) -> PhrasesReport:
    """Writes `scores_<name>` for every row that is to be fetched, fetched or not; resumes where an interrupted call stopped.

    Raises UsageError for a pool without rows, IdentityError when the table holds other scores.
    """
    rows, table = pool.snapshot("rows"), f"scores_{name}"
    if not rows.files:
        raise UsageError("the pool has no rows yet: plan a list first")
    schema = _schema(settings)
    known = pool.snapshot(table)
    if known.schema is not None and known.schema.names != schema.names:
        raise IdentityError(f"table {table!r} of this pool holds other scores: give the phrases another name  (--name)")
    basis = fingerprint(identity_of("phrases", VERSION, settings.model_dump(mode="json")), *(file.path for file in rows.files))
    run.add(table, schema)
    if known.by_part.keys() == rows.by_part.keys() and all(file.basis == basis for file in known.files):
        return PhrasesReport(table, len(rows.files), 0, recomputed=False)
    told = f"derive {name}"
    progress.start(told, None, "rounds")

    def after_round() -> None:
        run.check()
        progress.advance(told)

    shuffle = Shuffle(pool, table, basis, sum(file.rows for file in rows.files), crew, after_round)
    phrase_rounds(shuffle, Inputs(rows, rows, None), settings)
    found = shuffle.run(Write(table, schema, basis))
    run.replace_all(table, found.files)
    shuffle.close()
    progress.finish(told)
    return PhrasesReport(table, len(found.files), int(found.counters.get("rows", 0)), recomputed=True)


def _schema(settings: Phrases) -> pa.Schema:
    base = schemas.table("scores")
    return pa.schema([base.field("part"), base.field("row"), base.field("reason"), *settings.adds, base.field("basis")])
