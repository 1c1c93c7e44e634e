"""Finds the groups of rows that show or say the same and writes them, with the evidence, as two tables of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from curate import schema as schemas
from curate.dedupe.centroids import fit
from curate.dedupe.centroids import known as known_centroids
from curate.dedupe.clusters import prune
from curate.dedupe.copies import dimension_of
from curate.dedupe.described import ReadDescribed
from curate.dedupe.grouping import group
from curate.dedupe.settings import DedupeSettings, Kind
from curate.dedupe.tables import Inputs, ReadCaptions, ReadPictures, Write, chunks, pin
from curate.errors import UsageError
from curate.lease import Run
from curate.progress import Progress, Silent
from curate.shuffle import Shuffle
from curate.stage import Crew, PartFile, fingerprint, identity_of
from curate.store import Pool

VERSION = 2


@dataclass(frozen=True)
class DedupeReport:
    """What was found; `recomputed` is False when the tables were already up to date."""

    rows: int
    groups: int
    grouped_rows: int
    largest_group: int
    exact_pairs: int
    near_pairs: int
    recomputed: bool
    by: Kind = "pictures"


def output_tables(settings: DedupeSettings) -> dict[str, pa.Schema]:
    """Name and schema of the tables that a run must claim before `dedupe`."""
    names = (f"groups_{settings.name}", f"pairs_{settings.name}")
    return {name: schemas.table(name) for name in names}


def dedupe(pool: Pool, run: Run, settings: DedupeSettings, crew: Crew, progress: Progress | None = None) -> DedupeReport:
    """Brings `groups_<name>` and `pairs_<name>` up to date with the pool; does nothing when they are.

    `groups_` is row-aligned with `rows` in every fetched part; `pairs_` holds the merged pairs, for equal bytes or captions those
    to the member with the smallest sample_id. The work is a chain of rounds (`curate.shuffle`): it resumes where a call
    that was interrupted stopped, and holds one bucket of rows at a time. Raises UsageError when a table it needs is missing,
    or the name is that of groups of another kind.
    """
    _refuse_another_kind(pool, settings)
    inputs = pin(pool, _scores(settings), settings.by)
    centroids = known_centroids(pool, settings, inputs) if settings.by in ("embeddings", "copies") else ""
    known = None if centroids is None else _known(pool, settings, inputs, _basis(settings, inputs, centroids))
    if known is not None:
        return known
    told, progress = f"dedupe {settings.name}", progress or Silent()
    progress.start(told, None, "rounds")

    def after_round() -> None:
        run.check()
        progress.advance(told)

    if centroids is None:
        centroids = fit(pool, settings, inputs, crew, after_round)
    basis = _basis(settings, inputs, centroids)
    shuffle = Shuffle(pool, f"groups_{settings.name}", basis, sum(file.rows for file in inputs.fetched.files), crew, after_round)
    found, files = _grouped(pool, shuffle, inputs, settings, basis, centroids)
    _commit(run, settings.name, files)
    report = _report(found, settings.by)
    pool.write_document(f"groups_{settings.name}", {"basis": basis, **vars(report)})
    shuffle.close()
    progress.finish(told)
    return report


def _scores(settings: DedupeSettings) -> str | None:
    """The table of scores that is read."""
    return (
        f"scores_{settings.scores}"
        if settings.by in ("embeddings", "copies") or (settings.by == "pictures" and settings.perceptual)
        else None
    )


def _basis(settings: DedupeSettings, inputs: Inputs, centroids: str) -> str:
    fitted = [centroids] if centroids else []
    return fingerprint(identity_of("dedupe", VERSION, settings.matters()), *fitted, *inputs.names())


def _refuse_another_kind(pool: Pool, settings: DedupeSettings) -> None:
    by = str((pool.read_document(f"groups_{settings.name}") or {}).get("by", "pictures"))
    if by != settings.by and pool.snapshot(f"groups_{settings.name}").files:
        raise UsageError(f"groups_{settings.name} holds groups of {by}: say name= something else for those of {settings.by}")


def _known(pool: Pool, settings: DedupeSettings, inputs: Inputs, basis: str) -> DedupeReport | None:
    """What was found before, when the tables are up to date."""
    name = settings.name
    current, told = pool.snapshot(f"groups_{name}"), pool.read_document(f"groups_{name}")
    if told is None or sorted(current.by_part) != inputs.parts() or not all(file.basis == told["basis"] == basis for file in current.files):
        return None
    figures = {key: int(str(value)) for key, value in told.items() if key not in ("basis", "recomputed", "by")}
    return DedupeReport(**figures, recomputed=False, by=settings.by)


def _grouped(
    pool: Pool, shuffle: Shuffle, inputs: Inputs, settings: DedupeSettings, basis: str, centroids: str
) -> tuple[dict[str, float], list[PartFile]]:
    """Counters, and the files to commit."""
    if settings.by == "embeddings":
        counters = prune(pool, shuffle, inputs, settings, centroids)
    else:
        tasks, borders = chunks(inputs, str(pool.path), shuffle.buckets)
        shuffle.run(_reading(pool, inputs, settings, centroids), tasks)
        counters = group(shuffle, borders, settings, centroids)
    return counters, shuffle.run(Write(f"groups_{settings.name}", basis, settings.by)).files


def _reading(pool: Pool, inputs: Inputs, settings: DedupeSettings, centroids: str) -> ReadCaptions | ReadDescribed | ReadPictures:
    """The first round."""
    if settings.by == "captions":
        return ReadCaptions()
    if settings.by == "copies":
        assert inputs.scores is not None
        return ReadDescribed(inputs.scores.table, dimension_of(pool, centroids))
    return ReadPictures(inputs.scores.table if inputs.scores else None)


def _commit(run: Run, name: str, files: list[PartFile]) -> None:
    """Pairs first: the groups' basis is what says that both tables are current. Tables of an earlier version lack columns."""
    for table in (f"pairs_{name}", f"groups_{name}"):
        run.grow(table, schemas.table(table))
        run.replace_all(table, [file for file in files if file.table == table])


def _report(found: Mapping[str, float], by: Kind) -> DedupeReport:
    names = ("rows", "groups", "grouped rows", "largest", "exact pairs", "near pairs")
    rows, groups, grouped, largest, exact, near = (int(found.get(name, 0)) for name in names)
    return DedupeReport(rows, groups, grouped, largest, exact, near, recomputed=True, by=by)
