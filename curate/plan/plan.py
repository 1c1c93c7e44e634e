"""An input list becomes the table `rows`: read twice, cut into parts, committed at once.

The first reading counts and finds types (`survey`), the second spools rows into parts. Nothing is visible before one
transaction adds all parts, so a plan that was killed is simply made again, to the same files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from curate.errors import IdentityError, InputError
from curate.lease import Run
from curate.plan.parts import numbered, part_count, spooled, write_parts
from curate.plan.settings import InputSettings, PlanSettings
from curate.plan.sources import find_files, list_fingerprint
from curate.plan.survey import Survey, survey
from curate.progress import Progress, Silent
from curate.schema import nearest
from curate.stage import PartFile, fingerprint
from curate.store import Pool
from curate.suppress import read_suppression

VERSION = 1
DOCUMENT = "plan"


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
    wanted = identity(input_settings, settings, list_fingerprint(files))
    earlier = _earlier(pool, wanted)
    if earlier is not None:
        return earlier
    found = survey(input_settings, progress, files)
    _claim(pool, run, found)
    earlier = _earlier(pool, wanted)  # another run may have planned while this one counted
    if earlier is not None:
        return earlier
    basis = basis_of(wanted)
    written, reasons = _write(pool, found, input_settings, settings, basis, progress)
    if not written:
        raise InputError(f"input.sample={input_settings.sample} leaves none of {found.rows} rows: choose a larger share")
    report = PlanReport(found.rows, sum(file.rows for file in written), len(written), str(found.mapping), dict(reasons), True)
    pool.write_document(DOCUMENT, {"identity": wanted, "report": {**vars(report), "is_new": False}})
    run.commit("rows", written)
    return report


def identity(input_settings: InputSettings, settings: PlanSettings, files: Mapping[str, str]) -> dict[str, object]:
    """All that decides the rows' values: not where the list lies, nor how much memory is used."""
    told = {f"input.{key}": value for key, value in input_settings.model_dump(mode="json", exclude={"path"}).items()}
    cut = {f"plan.{key}": value for key, value in settings.model_dump(mode="json", exclude={"spool_bytes", "min_parts"}).items()}
    return {**told, **cut, "files": dict(files), "version": VERSION}


def basis_of(wanted: Mapping[str, object]) -> str:
    """`basis` of the part files of a list; equal for the same list with the same settings."""
    return fingerprint(DOCUMENT, json.dumps(wanted, sort_keys=True))


def _earlier(pool: Pool, wanted: Mapping[str, object]) -> PlanReport | None:
    """The report of the plan that this pool already has, None when it has none; IdentityError when it is another."""
    document = pool.read_document(DOCUMENT)
    if not pool.snapshot("rows").files:
        return None
    if document is None:
        raise IdentityError("this pool has rows that were not planned from a list: start a new pool")
    had = document["identity"]
    if had != json.loads(json.dumps(wanted)):
        told = f"this pool was planned otherwise: {_difference(had, wanted)}"  # type: ignore[arg-type]
        raise IdentityError(f"{told}; give the same again, start a new pool, or add a further list with  curate add")
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


def _write(
    pool: Pool, found: Survey, input_settings: InputSettings, settings: PlanSettings, basis: str, progress: Progress
) -> tuple[list[PartFile], Counter[str]]:
    parts = part_count(found.rows, input_settings.sample, settings)
    suppression = read_suppression(pool)
    with spooled(pool, found, input_settings, settings, parts, progress) as buckets:
        planned = ((part, suppression.mark(numbered(rows))) for part, rows in buckets.read())
        return write_parts(pool, planned, basis, found.schema)
