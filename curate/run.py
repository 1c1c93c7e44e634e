"""From phases to commits: which parts are stale, who works on them, when their files become the pool's."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from curate import schema as schemas
from curate.engines.base import Engine, EngineSettings, PartFailure
from curate.engines.local import LocalEngine
from curate.errors import IdentityError, PartsFailed, UsageError
from curate.lease import Run
from curate.progress import Progress, Silent
from curate.stage import PartFile, PartReport, PartTask, Phase, fingerprint
from curate.store import Pool, Snapshot


@dataclass
class PhaseReport:
    """What a phase did: parts worked on and skipped, rows by reason, counters (requests, decodes, model_calls, …)."""

    name: str
    parts: int = 0
    skipped: int = 0
    seconds: float = 0.0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    counters: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, report: PartReport) -> None:
        """Counts one part in."""
        self.parts += 1
        self.reasons.update(report.reasons)
        self.counters.update(report.counters)


def make_engine(settings: EngineSettings) -> Engine:
    """The engine that the settings name."""
    if settings.name == "local":
        return LocalEngine(settings)
    raise UsageError(f"engine {settings.name!r} is not one of: local")


def run_phase(pool: Pool, run: Run, phase: Phase, settings: EngineSettings, progress: Progress | None = None) -> PhaseReport:
    """Brings the phase's table up to date: computes the stale parts, commits them in waves.

    Raises PartsFailed when parts are left over, IdentityError when the table was written under other settings.
    """
    progress, begun = progress or Silent(), time.monotonic()
    run.add(phase.table, phase.schema)
    _hold_identity(pool, phase)
    tasks, done = stale_parts(pool, phase)
    report, failures = PhaseReport(phase.name, skipped=done), []
    waves = _Waves(run, phase.table, settings)
    progress.start(phase.name, len(tasks), "parts")
    try:
        for outcome in _each(settings, phase, tasks):
            if isinstance(outcome, PartFailure):
                failures.append(outcome)
                continue
            report.add(outcome)
            waves.add(outcome)
            progress.advance(phase.name, 1, **_facts(report))
    finally:
        waves.flush()
    progress.finish(phase.name)
    report.seconds = time.monotonic() - begun
    if failures:
        first = failures[0]
        raise PartsFailed(f"{phase.name}: {len(failures)} of {len(tasks)} parts failed; part {first.part}: {first.message.strip()}")
    return report


def stale_parts(pool: Pool, phase: Phase) -> tuple[list[PartTask], int]:
    """Work orders for the parts whose file is missing or was computed from something else; and how many are done."""
    inputs = {name: pool.snapshot(name) for name in phase.inputs}
    if inputs[phase.inputs[0]].version < 0:
        raise UsageError(f"{phase.name} reads table {phase.inputs[0]!r}, which this pool does not have yet: run the phase before it first")
    present = {name: found for name, found in inputs.items() if found.version >= 0}
    mine = pool.snapshot(phase.table)
    tasks = [_task(pool, phase, present, mine, part) for part in sorted(inputs[phase.inputs[0]].by_part)]
    stale = [task for task in tasks if not (task.previous and mine.by_part[task.part].basis == task.basis)]
    return stale, len(tasks) - len(stale)


def _task(pool: Pool, phase: Phase, inputs: Mapping[str, Snapshot], mine: Snapshot, part: int) -> PartTask:
    missing = [name for name, found in inputs.items() if part not in found.by_part]
    if missing:
        raise UsageError(f"{phase.name}: table {missing[0]!r} lacks part {part}: run the phase that writes it first")
    basis = part_basis(phase.identity(), {name: found.by_part[part].path for name, found in inputs.items()})
    previous = mine.path_of(part) if part in mine.by_part else None
    return PartTask(str(pool.path), part, {name: found.path_of(part) for name, found in inputs.items()}, basis, previous)


def part_basis(identity: str, files: Mapping[str, str]) -> str:
    """What a part's file is a function of: the phase's identity, and the part's file in each input table."""
    return fingerprint(identity, *(f"{name}/{path}" for name, path in sorted(files.items())))


def _each(settings: EngineSettings, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
    return make_engine(settings).each(phase, tasks) if tasks else iter(())


def _hold_identity(pool: Pool, phase: Phase) -> None:
    """One table holds the work of one identity; the first to write it decides which."""
    name = f"identity_{phase.table}"
    found = pool.read_document(name)
    if found is None or not pool.snapshot(phase.table).files:
        pool.write_document(name, {"phase": phase.name, "identity": phase.identity()})
    elif found["identity"] != phase.identity():
        raise IdentityError(
            f"table {phase.table!r} of this pool was written with other {phase.name} settings, weights or code: "
            f"give those again, choose another name for the new result, or start a new pool"
        )


def _facts(report: PhaseReport) -> dict[str, object]:
    good = report.reasons.get("ok", 0)
    return {"ok": good, "not ok": sum(report.reasons.values()) - good}


class _Waves:
    """Collects finished parts and commits many at once, so that a table's log grows with time and not with parts."""

    def __init__(self, run: Run, table: str, settings: EngineSettings) -> None:
        self.run, self.table, self.settings = run, table, settings
        self.waiting: list[PartFile] = []
        self.parts = 0
        self.since = time.monotonic()

    def add(self, report: PartReport) -> None:
        if not self.parts:
            self.since = time.monotonic()
        self.waiting.extend(report.files)
        self.parts += 1
        if self.parts >= self.settings.wave_parts or time.monotonic() - self.since >= self.settings.wave_seconds:
            self.flush()

    def flush(self) -> None:
        """Commits the phase's own table last: it says that a part is done, so all else of the part must be there by then."""
        files, self.waiting, self.parts = self.waiting, [], 0
        self.run.check()
        for table in sorted({file.table for file in files}, key=lambda name: name == self.table):
            self.run.add(table, schemas.table(table))
            self.run.commit(table, [file for file in files if file.table == table])
