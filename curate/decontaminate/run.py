"""One call: evaluation sets are read, the phase is made, and what is left behind is cleaned away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from curate.decontaminate.clearance import Clearance
from curate.decontaminate.index import Index, Tally, build
from curate.decontaminate.phase import TABLE, DecontaminatePhase
from curate.decontaminate.report import DecontaminateReport, report
from curate.decontaminate.sets import evaluations
from curate.decontaminate.settings import DecontaminateSettings
from curate.errors import UsageError
from curate.progress import Progress
from curate.score.descriptor import DescriptorScorer
from curate.store import Pool


@dataclass(frozen=True)
class Prepared:
    """A phase that can run, and what is told when it has."""

    phase: DecontaminatePhase
    pool: Pool
    tallies: list[Tally]

    def supersede(self) -> None:
        """Lets the phase write the table anew: what other sets or other settings found is replaced, part by part."""
        self.pool.write_document(f"identity_{TABLE}", {"phase": self.phase.name, "identity": self.phase.identity()})

    def report(self, output: Path | None, reveal: bool) -> DecontaminateReport:
        """What is in the table."""
        return report(self.pool, self.tallies, self.phase.clearance, Index(Path(self.phase.folder)), output, reveal)


@contextmanager
def prepared(
    pool: Pool, against: tuple[str, ...], clear: str | None, settings: DecontaminateSettings, progress: Progress
) -> Iterator[Prepared]:
    """Reads the evaluation sets into the pool's tmp folder for as long as the block runs.

    Raises UsageError for a pool that lacks what is compared, InputError for a set or a list that cannot be read.
    """
    pool.require_disk("decontaminating")
    _require(pool, settings)
    sets, clearance, folder = evaluations(against), Clearance.read(clear), pool.temporary(".evaluations")
    table, scorer = _described(pool, settings.descriptor)
    try:
        with scorer.describing() if scorer else nullcontext() as describe:
            tallies, digest = build(folder, sets, settings.caption_words, describe, progress)
        yield Prepared(DecontaminatePhase(settings, str(folder), digest, clearance, table), pool, tallies)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require(pool: Pool, settings: DecontaminateSettings) -> None:
    if not pool.snapshot("fetched").files:
        raise UsageError("nothing has been fetched into this pool yet: run  curate run ingest  first")
    scores = pool.snapshot(f"scores_{settings.scores}")
    if settings.perceptual and "phash" not in (scores.schema.names if scores.schema else ()):
        raise UsageError(f"table {scores.table} has no phash: score the pool with the image scorer, or give  perceptual=false")


def _described(pool: Pool, wanted: str | None) -> tuple[str | None, DescriptorScorer | None]:
    """The table of the pool's descriptors, and what they were computed with. Raises UsageError, IdentityError."""
    tables = [name for name in pool.tables() if name.startswith("scores_") and pool.read_document(f"descriptor_{name}")]
    if wanted is None or (wanted == "auto" and not tables):
        return None, None
    table = tables[0] if wanted == "auto" and len(tables) == 1 else f"scores_{wanted}"
    if table not in tables:
        there = f"descriptors of this pool are in {', '.join(tables)}" if tables else "this pool has no descriptors"
        raise UsageError(f"{there}: say descriptor= one of them without scores_, or descriptor=null")
    return table, DescriptorScorer.recorded(pool, table)
