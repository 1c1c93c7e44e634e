"""An input list becomes the table `rows`: read twice, cut into parts, committed at once.

The first reading counts and finds types (`survey`), the second spools rows into parts. Nothing is visible before one
transaction adds all parts, so a plan that was killed is simply made again, to the same files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import IdentityError, InputError
from curate.lease import Run
from curate.plan.readers import read_blocks
from curate.plan.rows import RowMaker, rows_schema
from curate.plan.settings import InputSettings, PlanSettings
from curate.plan.sources import find_files, list_fingerprint
from curate.plan.spool import Spool, spool
from curate.plan.survey import Survey, survey
from curate.progress import Progress, Silent
from curate.schema import nearest
from curate.stage import PartFile, fingerprint
from curate.store import Pool
from curate.suppress import read_suppression

VERSION = 1
DOCUMENT = "plan"
TASK = "plan: rows"


@dataclass(frozen=True)
class PlanReport:
    """What planning found: rows of the list and of the pool (fewer with `input.sample`), and rows by reason or `ok`."""

    listed: int
    rows: int
    parts: int
    mapping: str
    reasons: Mapping[str, int]
    is_new: bool


def plan(
    pool: Pool, run: Run, input_settings: InputSettings, plan_settings: PlanSettings | None = None, progress: Progress | None = None
) -> PlanReport:
    """Plans a list into an empty pool; does nothing when the pool was planned from the same list and settings.

    Raises InputError for a list that cannot be used, IdentityError when the pool holds another list or other settings.
    """
    settings, progress = plan_settings or PlanSettings(), progress or Silent()
    files = find_files(input_settings)
    wanted = _identity(input_settings, settings, list_fingerprint(files))
    earlier = _earlier(pool, wanted)
    if earlier is not None:
        return earlier
    found = survey(input_settings, progress, files)
    _claim(pool, run, found)
    earlier = _earlier(pool, wanted)  # another run may have planned while this one counted
    if earlier is not None:
        return earlier
    basis = fingerprint(DOCUMENT, json.dumps(wanted, sort_keys=True))
    written, reasons = _write(pool, found, input_settings, settings, basis, progress)
    if not written:
        raise InputError(f"input.sample={input_settings.sample} leaves none of {found.rows} rows: choose a larger share")
    report = PlanReport(found.rows, sum(file.rows for file in written), len(written), str(found.mapping), dict(reasons), True)
    pool.write_document(DOCUMENT, {"identity": wanted, "report": {**vars(report), "is_new": False}})
    run.commit("rows", written)
    return report


def _identity(input_settings: InputSettings, settings: PlanSettings, files: Mapping[str, str]) -> dict[str, object]:
    """All that decides the rows' values: not where the list lies, nor how much memory is used."""
    told = {f"input.{key}": value for key, value in input_settings.model_dump(mode="json", exclude={"path"}).items()}
    cut = {f"plan.{key}": value for key, value in settings.model_dump(mode="json", exclude={"spool_bytes"}).items()}
    return {**told, **cut, "files": dict(files), "version": VERSION}


def _earlier(pool: Pool, wanted: Mapping[str, object]) -> PlanReport | None:
    """The report of the plan that this pool already has, None when it has none; IdentityError when it is another."""
    document = pool.read_document(DOCUMENT)
    if not pool.snapshot("rows").files:
        return None
    if document is None:
        raise IdentityError("this pool has rows that were not planned from a list: start a new pool")
    had = document["identity"]
    if had != json.loads(json.dumps(wanted)):
        raise IdentityError(f"this pool was planned otherwise: {_difference(had, wanted)}; give the same again, or start a new pool")  # type: ignore[arg-type]
    return PlanReport(**document["report"])  # type: ignore[arg-type]


def _difference(had: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    for key in wanted:
        if key != "files" and had.get(key) != json.loads(json.dumps(wanted[key])):
            return f"{key} was {had.get(key)!r} and is {wanted[key]!r}"
    before, now = dict(had["files"]), dict(wanted["files"])  # type: ignore[call-overload]
    for name in [*now, *before]:
        if name not in before:
            return f"{name!r} was not in its list{nearest(name, list(before))}"
        if name not in now:
            return f"{name!r} was in its list and is not now"
        if before[name] != now[name]:
            return f"{name!r} has changed since"
    return "the files of the list stand in another order"


def _claim(pool: Pool, run: Run, found: Survey) -> None:
    """Takes the table; an interrupted plan of another list may have left it empty, with other columns."""
    left = pool.snapshot("rows").schema
    if left is not None and [(field.name, field.type) for field in left] != [(field.name, field.type) for field in found.schema]:
        raise IdentityError("an interrupted plan of another list left its columns in this pool: start a new pool")
    run.add("rows", found.schema)


def part_count(rows: int, fraction: float, settings: PlanSettings) -> int:
    """How many parts a list of so many rows is cut into."""
    wanted = max(1, -(-round(rows * fraction) // settings.rows_per_part))
    return wanted if settings.max_parts is None else min(wanted, settings.max_parts)


def _write(
    pool: Pool, found: Survey, input_settings: InputSettings, settings: PlanSettings, basis: str, progress: Progress
) -> tuple[list[PartFile], Counter[str]]:
    parts = part_count(found.rows, input_settings.sample, settings)
    written: list[PartFile] = []
    reasons: Counter[str] = Counter()
    suppression = read_suppression(pool)
    with spool(pool, rows_schema(found), settings.spool_bytes) as spooled:
        _fill(spooled, found, parts, input_settings, progress)
        for part in range(parts):
            rows = suppression.mark(_finished(spooled.read(part)))
            if rows.num_rows:
                written.append(pool.write_part("rows", part, rows, basis, found.schema))
                reasons.update({pair["values"] or "ok": pair["counts"] for pair in pc.value_counts(rows["reason"]).to_pylist()})
    return written, reasons


def _fill(spooled: Spool, found: Survey, parts: int, settings: InputSettings, progress: Progress) -> None:
    progress.start(TASK, found.rows, "rows")
    for file in found.files:
        maker = RowMaker(found, file, found.names.of_file(), parts, settings.sample)
        for block in read_blocks(file, settings):
            spooled.add(*maker.make(block))
            progress.advance(TASK, block.rows, file=file.name)
    spooled.flush()
    progress.finish(TASK)


def _finished(rows: pa.Table) -> pa.Table:
    """A part's rows with their numbers; the later ones of equal URL and caption are marked as duplicates."""
    first = np.zeros(rows.num_rows, dtype=np.bool_)
    first[np.unique(rows["sample_id"].to_numpy().astype("S32"), return_index=True)[1]] = True
    later = pc.and_(pa.array(~first), pc.is_null(rows["reason"]))
    reason = pc.if_else(later, pa.scalar("duplicate_row"), rows["reason"])
    rows = rows.set_column(rows.schema.get_field_index("reason"), "reason", reason)
    return rows.append_column("row", pa.array(np.arange(rows.num_rows, dtype=np.int32)))
