"""A further list enters a pool that exists: as further parts, marked where the pool has a row or its URL already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from curate.errors import InputError, UsageError
from curate.lease import Run
from curate.plan.known import Known, known_rows
from curate.plan.parts import numbered, part_count, spooled, write_parts
from curate.plan.plan import DOCUMENT, basis_of, identity
from curate.plan.settings import InputSettings, PlanSettings
from curate.plan.sources import find_files, list_fingerprint
from curate.plan.spool import Spool
from curate.plan.survey import Survey, survey
from curate.progress import Progress, Silent
from curate.schema import SOURCE_PREFIX
from curate.settings import build
from curate.store import Pool, Snapshot
from curate.suppress import read_suppression


@dataclass(frozen=True)
class AddReport:
    """What a further list brought: its rows and parts, numbered from `first_part`; rows by reason, or `ok`.

    `shared` rows are another caption of a URL that the pool asks for already; `is_new` is False when the list was there.
    """

    listed: int
    rows: int
    parts: int
    first_part: int
    shared: int
    mapping: str
    reasons: Mapping[str, int]
    is_new: bool


def add(pool: Pool, run: Run, input_settings: InputSettings, progress: Progress | None = None) -> AddReport:
    """Plans a further list into a pool; does nothing when the pool has it, with the same settings.

    Parts that are there stay as they are; numbers continue. A row whose sample the pool has is a `duplicate_row`. Raises
    UsageError for a pool without rows, InputError for a list that cannot be used or whose columns have other types.
    """
    progress, rows = progress or Silent(), pool.snapshot("rows")
    if rows.schema is None or not rows.files:
        raise UsageError(f"the pool has no rows yet: run  curate run ingest --pool {pool.path} input.path=LIST  first")
    settings, files = _plan_settings(pool), find_files(input_settings)
    wanted = identity(input_settings, settings, list_fingerprint(files))
    basis = basis_of(wanted)
    run.add("rows", rows.schema)
    rows = pool.snapshot("rows")  # nobody else changes it from here on
    there = [file.part for file in rows.files if file.basis == basis]
    if there:
        return _known_report(pool, basis, there[0])
    found = survey(input_settings, progress, files, _source_types(rows))
    first = max(rows.by_part) + 1
    return _write(_Addition(pool, run, rows, found, input_settings, settings, basis, first), wanted, progress)


def _plan_settings(pool: Pool) -> PlanSettings:
    """How the pool's first list was cut: fixed for the life of the pool."""
    had = (pool.read_document(DOCUMENT) or {}).get("identity")
    told = had if isinstance(had, dict) else {}
    return build(PlanSettings, {key.removeprefix("plan."): value for key, value in told.items() if key.startswith("plan.")})


def _source_types(rows: Snapshot) -> dict[str, pa.DataType]:
    assert rows.schema is not None
    return {field.name: field.type for field in rows.schema if field.name.startswith(SOURCE_PREFIX)}


def _document(basis: str) -> str:
    return f"added_{basis[:12]}"


def _known_report(pool: Pool, basis: str, first: int) -> AddReport:
    """The report of a list that the pool has: as a list that was added, or as its first one."""
    document = pool.read_document(_document(basis)) or pool.read_document(DOCUMENT) or {}
    told = dict(document["report"])  # type: ignore[call-overload]
    return AddReport(**{"first_part": first, "shared": 0, **told, "is_new": False})


# -- writing


@dataclass(frozen=True)
class _Addition:
    pool: Pool
    run: Run
    rows: Snapshot
    found: Survey
    input_settings: InputSettings
    settings: PlanSettings
    basis: str
    first: int

    @property
    def schema(self) -> pa.Schema:
        """Of the table when it has grown: what it had, then this list's further columns."""
        assert self.rows.schema is not None
        return pa.schema([*self.rows.schema, *(field for field in self.found.schema if field.name not in self.rows.schema.names)])


def _write(new: _Addition, wanted: Mapping[str, object], progress: Progress) -> AddReport:
    """One transaction makes all parts visible; whoever is killed before it writes the same files again."""
    count = part_count(new.found.rows, new.input_settings.sample, new.settings)
    shared: Counter[str] = Counter()
    with spooled(new.pool, new.found, new.input_settings, new.settings, count, progress) as buckets, known_rows(new.pool) as known:
        for bucket, rows in buckets.read():
            known.add(new.first + bucket, numbered(rows))
        known.join(new.rows)
        written, reasons = write_parts(new.pool, _marked(new, buckets, known, shared), new.basis, new.schema)
    if not written:
        raise InputError(f"sample={new.input_settings.sample} leaves none of {new.found.rows} rows: choose a larger share")
    total = sum(file.rows for file in written)
    report = AddReport(new.found.rows, total, len(written), new.first, shared["rows"], str(new.found.mapping), dict(reasons), True)
    new.pool.write_document(_document(new.basis), {"identity": wanted, "report": {**vars(report), "is_new": False}})
    new.run.grow("rows", new.schema)
    new.run.commit("rows", written)
    return report


def _marked(new: _Addition, buckets: Spool, known: Known, shared: Counter[str]) -> Iterator[tuple[int, pa.Table]]:
    suppression = read_suppression(new.pool)
    for bucket, rows in buckets.read():
        part = new.first + bucket
        marked = known.marked(part, suppression.mark(numbered(rows)))
        shared["rows"] += marked.num_rows - marked["earlier_parts"].null_count
        yield part, marked
