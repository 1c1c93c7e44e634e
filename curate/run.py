"""From phases to commits: which parts are stale, who works on them, when their files become the pool's."""

from __future__ import annotations

import collections
import importlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from curate import schema as schemas
from curate.engines.base import PACKAGES, Engine, EngineSettings, PartFailure
from curate.errors import IdentityError, MissingExtra, PartsFailed, UsageError
from curate.isolate import isolate
from curate.lease import Run
from curate.objects import is_object
from curate.parquet import read_table
from curate.progress import Progress, Silent
from curate.stage import Again, Crew, Divisible, PartFile, PartReport, PartTask, Phase, Repeatable, part_basis
from curate.store import Pool, Snapshot


@dataclass
class PhaseReport:
    """What a phase did: parts worked on and skipped, rows by reason, counters (requests, decodes, model_calls, …).

    `passes` is more than 1 when rows of finished parts were done again (domains over budget).
    """

    name: str
    parts: int = 0
    skipped: int = 0
    seconds: float = 0.0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    counters: collections.Counter[str] = field(default_factory=collections.Counter)
    passes: int = 1
    waiting: int = 0  # parts that the phase before has not finished yet, as when it runs at the same time


def make_engine(settings: EngineSettings) -> Engine:
    """The engine that the settings name; only this one's package is loaded. Raises MissingExtra."""
    package = PACKAGES[settings.name]
    try:
        module = importlib.import_module(f"curate.engines.{settings.name}")
    except ModuleNotFoundError as error:
        if not package or (error.name or "").split(".")[0] != package:
            raise
        raise MissingExtra(package, settings.name) from None
    made: Engine = module.make(settings)
    return made


def crew(settings: EngineSettings) -> Crew:
    """The engine for work of which no part may be missing: it raises PartsFailed at the first task that fails."""

    def each(phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport]:
        for outcome in make_engine(settings).each(phase, tasks):
            if isinstance(outcome, PartFailure):
                raise PartsFailed(f"{phase.name}: task {outcome.part} of {len(tasks)} failed: {outcome.message.strip()}")
            yield outcome

    return Crew(each, settings.bucket_rows)


def run_phase(pool: Pool, run: Run, phase: Phase, settings: EngineSettings, progress: Progress | None = None) -> PhaseReport:
    """Brings the phase's table up to date: computes the stale parts, commits them in waves.

    A `Repeatable` phase then does the rows that it left for later, in passes over the parts that hold such rows, until
    none is left; list by list where several were added. Raises PartsFailed when parts are left over, IdentityError when
    the table was written under other settings.
    """
    _take(pool, run, phase)
    tasks = _tasks(pool, phase)
    work = _Work(pool, run, phase, settings, progress or Silent())
    for parts in _lists(pool, phase, tasks):
        work.do(phase, [task for task in parts if not _is_current(task)])
        work.later_passes(parts)
    return work.end(tasks)


def redo(pool: Pool, run: Run, phase: Repeatable, settings: EngineSettings, again: Again, progress: Progress | None = None) -> PhaseReport:
    """Does the rows that `again` chooses once more, in parts that are up to date; no other row changes.

    Parts that are stale or were never done are left to `run_phase`. Raises PartsFailed, IdentityError.
    """
    _take(pool, run, phase)
    tasks = _tasks(pool, phase)
    work = _Work(pool, run, phase, settings, progress or Silent())
    for parts in _lists(pool, phase, tasks):
        work.do(phase, work.chosen(parts, again))
        work.later_passes(parts)
    return work.end(tasks)


def stale_parts(pool: Pool, phase: Phase) -> tuple[list[PartTask], int]:
    """Work orders for the parts whose file is missing or was computed from something else; and how many are done."""
    tasks = _tasks(pool, phase)
    stale = [task for task in tasks if not _is_current(task)]
    return [task.order for task in stale], len(tasks) - len(stale)


def open_parts(pool: Pool, phase: Phase) -> tuple[list[int], list[PartTask]]:
    """All part numbers, and work orders for those that are stale; when none is, for those with rows left for a later pass."""
    tasks = _tasks(pool, phase)
    numbers, stale = [task.order.part for task in tasks], [task.order for task in tasks if not _is_current(task)]
    if stale or not isinstance(phase, Repeatable):
        return numbers, stale
    again = Again(tuple(phase.again))
    holders = _parts_with(pool, phase.table, again.reasons, set(numbers))
    return numbers, [replace(task.order, again=again) for task in tasks if task.order.part in holders]


@dataclass(frozen=True)
class _Task:
    """A part's work order, and what its committed file was computed from."""

    order: PartTask
    basis: str | None


def _is_current(task: _Task) -> bool:
    return task.basis == task.order.basis


class _Tasks(list[_Task]):
    """Tasks in part order; `waiting` counts the parts that lack an input still."""

    def __init__(self, tasks: Sequence[_Task], waiting: int) -> None:
        super().__init__(tasks)
        self.waiting = waiting


def _tasks(pool: Pool, phase: Phase) -> _Tasks:
    """One for every part that all inputs have, in part order."""
    inputs = {name: pool.snapshot(name) for name in phase.inputs}
    if inputs[phase.inputs[0]].version < 0:
        raise UsageError(f"{phase.name} reads table {phase.inputs[0]!r}, which this pool does not have yet: run the phase before it first")
    present = {name: found for name, found in inputs.items() if found.version >= 0}
    mine = pool.snapshot(phase.table)
    beside = [pool.snapshot(name) for name in phase.also] if isinstance(phase, Repeatable) else []
    ready = set.intersection(*(set(found.by_part) for found in present.values()))
    return _Tasks(
        [_task(pool, phase, present, mine, beside, part) for part in sorted(ready)], len(inputs[phase.inputs[0]].by_part) - len(ready)
    )


def _task(pool: Pool, phase: Phase, inputs: Mapping[str, Snapshot], mine: Snapshot, beside: Sequence[Snapshot], part: int) -> _Task:
    basis = part_basis(phase.identity(), {name: found.by_part[part].path for name, found in inputs.items()})
    paths = {name: found.path_of(part) for name, found in inputs.items()}
    if part not in mine.by_part:
        return _Task(PartTask(str(pool.path), part, paths, basis), None)
    known = {found.table: found.path_of(part) for found in beside if part in found.by_part}
    return _Task(PartTask(str(pool.path), part, paths, basis, mine.path_of(part), known), mine.by_part[part].basis)


def _lists(pool: Pool, phase: Phase, tasks: Sequence[_Task]) -> list[list[_Task]]:
    """Tasks by the list that their rows came with, in the order in which the lists were added; all at once where that does not matter."""
    if not isinstance(phase, Repeatable):
        return [list(tasks)]
    rows = pool.snapshot(phase.inputs[0]).by_part
    return [list(parts) for _, parts in itertools.groupby(tasks, lambda task: rows[task.order.part].basis)]


class _Work:
    """One run of a phase over some parts, in one or more passes."""

    def __init__(self, pool: Pool, run: Run, phase: Phase, settings: EngineSettings, progress: Progress) -> None:
        self.pool, self.run, self.phase, self.settings, self.progress = pool, run, phase, settings, progress
        self.report, self.begun = PhaseReport(phase.name), time.monotonic()
        self.failures: dict[int, str] = {}
        self.reasons: dict[int, Mapping[str, int]] = {}  # of each part that was worked on, after its last pass

    def do(self, phase: Phase, tasks: Sequence[_Task], name: str = "") -> None:
        """Has the tasks done, and commits what comes in; parts that fail are remembered."""
        if not tasks:
            return
        waves, shown = Waves(self.run, phase.table, self.settings), name or phase.name
        self.progress.start(shown, len(tasks), "parts")
        took = collections.Counter[str]()  # in this pass
        try:
            for outcome in self._outcomes(phase, [task.order for task in tasks], waves):
                if isinstance(outcome, PartFailure):
                    self.failures[outcome.part] = outcome.message
                    continue
                self._count(outcome)
                waves.add(outcome)
                self.progress.advance(shown, 1, **_facts(self.report))
                took.update(outcome.counters)
                self.progress.tally(shown, self.report.reasons, took)
        finally:
            waves.flush()
        self.progress.finish(shown)

    def _outcomes(self, phase: Phase, orders: Sequence[PartTask], waves: Waves) -> Iterator[PartReport | PartFailure]:
        """What becomes of each part; where its worker died at every try, after the rows to blame were looked for."""
        crashed: list[PartFailure] = []
        for outcome in make_engine(self.settings).each(phase, orders):
            if isinstance(outcome, PartFailure) and outcome.crashed and isinstance(phase, Divisible):
                crashed.append(outcome)
            else:
                yield outcome
        if crashed:
            waves.flush()
            yield from self._isolated(phase, {order.part: order for order in orders}, crashed)

    def _isolated(self, phase: Phase, orders: Mapping[int, PartTask], crashed: Sequence[PartFailure]) -> Iterator[PartReport | PartFailure]:
        """Parts without the rows that kill their worker; after one where no rows are to blame, the others are let alone."""
        assert isinstance(phase, Divisible)
        hasty, patient = (make_engine(self.settings.model_copy(update={"tries": tries})) for tries in (1, self.settings.tries))
        hopeless = False
        for failure in crashed:
            outcome = failure if hopeless else isolate(phase, orders[failure.part], hasty, patient)
            hopeless = isinstance(outcome, PartFailure)
            yield outcome

    def later_passes(self, tasks: Sequence[_Task]) -> None:
        """Does the rows again that the phase left for later, until the committed table has none."""
        if not isinstance(self.phase, Repeatable):
            return
        parts, number = {task.order.part for task in tasks}, 0
        while waiting := self.chosen(self._renewed(parts), Again(tuple(self.phase.again))):
            number += 1
            self.do(self.phase.later(number), waiting, f"{self.phase.name}, pass {number + 1}")
            self.report.passes = max(self.report.passes, number + 1)
            parts = {task.order.part for task in waiting}

    def _renewed(self, parts: set[int]) -> list[_Task]:
        return [task for task in _tasks(self.pool, self.phase) if task.order.part in parts]

    def chosen(self, tasks: Sequence[_Task], again: Again) -> list[_Task]:
        """Those of the tasks that are up to date and hold rows to do again, with that order; parts that failed are let alone."""
        assert isinstance(self.phase, Repeatable)
        done = {task.order.part: task for task in tasks if _is_current(task) and task.order.part not in self.failures}
        holders = _parts_with(self.pool, self.phase.table, again.reasons, set(done))
        orders = [replace(task, order=replace(task.order, again=again)) for part, task in done.items() if part in holders]
        return [task for task in orders if self.phase.chosen(task.order)]

    def _count(self, report: PartReport) -> None:
        """Counts one part in; what an earlier pass said of its rows no longer holds."""
        self.report.reasons.subtract(self.reasons.get(report.part, {}))
        self.report.reasons.update(report.reasons)
        self.report.counters.update(report.counters)
        self.reasons[report.part] = report.reasons
        self.report.parts = len(self.reasons)

    def end(self, tasks: _Tasks) -> PhaseReport:
        """The report on all passes. Raises PartsFailed."""
        self.report.reasons, self.report.waiting = +self.report.reasons, tasks.waiting
        self.report.skipped = len(tasks) - len(self.reasons.keys() | self.failures.keys())
        self.report.seconds = time.monotonic() - self.begun
        if self.failures:
            part, message = next(iter(self.failures.items()))
            tried = len(self.reasons.keys() | self.failures.keys())
            raise PartsFailed(f"{self.phase.name}: {len(self.failures)} of {tried} parts failed; part {part}: {message.strip()}")
        return self.report


def _parts_with(pool: Pool, table: str, reasons: Sequence[str], parts: set[int]) -> set[int]:
    """Parts of the committed table that hold a row with one of the reasons; reads that column and no more."""
    found = pool.snapshot(table)
    paths = [str(found.folder / file.path) for file in found.files if file.part in parts]
    if not (paths and reasons):
        return set()
    if is_object(paths[0]):
        wanted = pa.array(list(reasons), pa.string())
        return {file.part for file in found.files if file.part in parts and _has(found.path_of(file.part), wanted)}
    columns = pa.schema([("part", pa.int32()), ("reason", pa.string())])
    holders = ds.dataset(paths, schema=columns, format="parquet").scanner(["part"], filter=ds.field("reason").isin(list(reasons)))
    seen: set[int] = set()
    for batch in holders.to_batches():
        seen.update(pc.unique(batch["part"]).to_pylist())
    return seen


def _has(path: str, reasons: pa.Array) -> bool:
    return bool(pc.any(pc.is_in(read_table(path, ["reason"])["reason"], value_set=reasons)).as_py())


def _take(pool: Pool, run: Run, phase: Phase) -> None:
    run.add(phase.table, phase.schema)
    hold_identity(pool, phase.table, phase.name, phase.identity())


def hold_identity(pool: Pool, table: str, phase: str, identity: str) -> None:
    """One table holds the work of one identity; the first to write it decides which. Raises IdentityError."""
    name = f"identity_{table}"
    found = pool.read_document(name)
    if found is None or not pool.snapshot(table).files:
        pool.write_document(name, {"phase": phase, "identity": identity})
    elif found["identity"] != identity:
        raise IdentityError(
            f"table {table!r} of this pool was written with other {phase} settings, weights or code: "
            f"give those again, choose another name for the new result, or start a new pool"
        )


def _facts(report: PhaseReport) -> dict[str, object]:
    good = report.reasons.get("ok", 0)
    return {"ok": good, "not ok": sum(report.reasons.values()) - good}


TABLE_WAVES = 100
"""A wave is at least this fraction of its table: delta-rs goes over all files at each commit, which would make many parts quadratic."""


class Waves:
    """Collects finished parts and commits many at once, so that a table's log grows with time and not with parts."""

    def __init__(self, run: Run, table: str, settings: EngineSettings) -> None:
        self.run, self.table, self.settings = run, table, settings
        self.waiting: list[PartFile] = []
        self.parts = 0
        self.since = time.monotonic()

    def add(self, report: PartReport) -> None:
        """Takes a part in, and commits when it is time."""
        if not self.parts:
            self.since = time.monotonic()
        self.waiting.extend(report.files)
        self.parts += 1
        enough = max(self.settings.wave_parts, self.run.size(self.table) // TABLE_WAVES)
        if self.parts >= enough or time.monotonic() - self.since >= self.settings.wave_seconds:
            self.flush()

    def flush(self) -> None:
        """Commits the phase's own table last: it says that a part is done, so all else of the part must be there by then."""
        files, self.waiting, self.parts = self.waiting, [], 0
        self.run.check()
        for table in sorted({file.table for file in files}, key=lambda name: name == self.table):
            self.run.add(table, schemas.table(table))
            self.run.commit(table, [file for file in files if file.table == table])
