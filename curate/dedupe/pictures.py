"""Finds the groups of rows that show the same picture and writes them, with the evidence, as two tables of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import schema as schemas
from curate.dedupe.grouping import Groups, group
from curate.dedupe.settings import DedupeSettings
from curate.dedupe.tables import Inputs, Located, pin, read
from curate.lease import Run
from curate.progress import Progress, Silent
from curate.stage import PartFile, fingerprint, identity_of
from curate.store import Pool

VERSION = 1


@dataclass(frozen=True)
class DedupeReport:
    """What was found; `recomputed` is False when the tables were already up to date."""

    rows: int
    groups: int
    grouped_rows: int
    largest_group: int
    exact_pairs: int
    perceptual_pairs: int
    recomputed: bool


def output_tables(settings: DedupeSettings) -> dict[str, pa.Schema]:
    """Name and schema of the tables that a run must claim before `dedupe`."""
    names = (f"groups_{settings.name}", f"pairs_{settings.name}")
    return {name: schemas.table(name) for name in names}


def dedupe(pool: Pool, run: Run, settings: DedupeSettings, progress: Progress | None = None) -> DedupeReport:
    """Brings `groups_<name>` and `pairs_<name>` up to date with the pool; does nothing when they are.

    `groups_` is row-aligned with `rows` in every fetched part; `pairs_` holds the merged pairs, for equal bytes those
    to the member with the smallest sample_id. Raises UsageError when a table it needs is missing.
    """
    inputs = pin(pool, f"scores_{settings.scores}" if settings.perceptual else None)
    basis = fingerprint(identity_of("dedupe", VERSION, settings.model_dump(mode="json")), *inputs.names())
    current = pool.snapshot(f"groups_{settings.name}")
    if sorted(current.by_part) == inputs.parts() and all(file.basis == basis for file in current.files):
        return _report_of(pool, settings)
    progress = progress or Silent()
    task = f"dedupe {settings.name}"
    progress.start(task, 3, "steps")
    located = read(inputs)
    progress.advance(task, rows=len(located.pictures))
    found = group(located.pictures, settings)
    progress.advance(task, pairs=len(found.evidence.first))
    _write(pool, run, settings.name, inputs, located, found, basis)
    progress.advance(task)
    progress.finish(task)
    return _report(found)


def _write(pool: Pool, run: Run, name: str, inputs: Inputs, located: Located, found: Groups, basis: str) -> None:
    """Pairs first: the groups' basis is what says that both tables are current."""
    parts = inputs.parts()
    run.replace_all(f"pairs_{name}", list(_pair_files(pool, f"pairs_{name}", located, found, basis)))
    ids = _group_ids(located, found)
    files = [_group_file(pool, f"groups_{name}", part, located, found, ids, basis) for part in parts]
    run.replace_all(f"groups_{name}", files)


def _group_ids(located: Located, found: Groups) -> NDArray[np.object_]:
    """Smallest sample_id of each picture's group as 32 hex digits; None where it stands alone."""
    ids = np.full(len(located.pictures), None, object)
    grouped = np.flatnonzero(found.size > 1)
    words = located.pictures.sample_id[found.representative[grouped]]
    ids[grouped] = [f"{high:016x}{low:016x}" for high, low in words.tolist()]
    return ids


def _group_file(pool: Pool, table: str, part: int, located: Located, found: Groups, ids: NDArray[np.object_], basis: str) -> PartFile:
    count = located.rows_of_part[part]
    low, high = np.searchsorted(located.part, [part, part + 1])
    rows = located.row[low:high]
    group_id, size, match = (np.full(count, None, object) for _ in range(3))
    group_id[rows] = ids[low:high]
    size[rows] = found.size[low:high]
    words = np.array(["perceptual", "exact"], object)[found.exact[low:high].astype(np.int64)]
    words[found.size[low:high] == 1] = None
    match[rows] = words
    data = {"row": pa.array(range(count), pa.int32()), "group_id": pa.array(group_id, pa.string())}
    data |= {"group_size": pa.array(size.tolist(), pa.int32()), "match": pa.array(match, pa.string())}
    return pool.write_part(table, part, pa.table(data), basis)


def _pair_files(pool: Pool, table: str, located: Located, found: Groups, basis: str) -> Iterator[PartFile]:
    """One file for each part that holds the first row of a pair."""
    pairs = found.evidence
    part = located.part[pairs.first]
    for number in np.unique(part).tolist():
        low, high = np.searchsorted(part, [number, number + 1])
        first, second = pairs.first[low:high], pairs.second[low:high]
        data = {
            "row": located.row[first],
            "other_part": located.part[second],
            "other_row": located.row[second],
            "match": np.where(pairs.exact[low:high], "exact", "perceptual"),
            "distance": pairs.distance[low:high],
        }
        yield pool.write_part(table, int(number), pa.table({key: pa.array(value) for key, value in data.items()}), basis)


def _report(found: Groups) -> DedupeReport:
    grouped = found.size > 1
    exact = int(found.evidence.exact.sum())
    groups = len(np.unique(found.representative[grouped]))
    pairs = len(found.evidence.first) - exact
    return DedupeReport(len(found.size), groups, int(grouped.sum()), int(found.size.max(initial=0)), exact, pairs, True)


def _report_of(pool: Pool, settings: DedupeSettings) -> DedupeReport:
    """The same figures read back from the tables."""
    groups = pool.snapshot(f"groups_{settings.name}").read(["group_id", "group_size"])
    size = groups.column("group_size").drop_null().to_numpy()
    pairs = pool.snapshot(f"pairs_{settings.name}").read(["match"]).column("match").to_pylist()
    distinct = len(groups.column("group_id").drop_null().unique())
    exact = pairs.count("exact")
    return DedupeReport(len(size), distinct, int((size > 1).sum()), int(size.max(initial=0)), exact, len(pairs) - exact, False)
