"""Parts without a lease: workers do ranges of parts and leave reports; one commit takes them into the tables.

For clusters on which no driver can run for as long as the work takes, and for machines that share nothing but the pool's
file system. The order of things is that of any run: files are published, then reported, then committed under lease.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curate.engines import reports
from curate.engines.base import EngineSettings, PartFailure
from curate.engines.local import LocalEngine
from curate.engines.reports import Left
from curate.engines.slurm import FAILED, STOP, Order, place_in_job, share_of
from curate.errors import CurateError, PartsFailed, UsageError
from curate.lease import Run, refuse_unfinished
from curate.progress import Progress, Silent
from curate.run import Waves, hold_identity, open_parts
from curate.stage import PartReport, PartTask, Phase, part_basis
from curate.store import Pool, Snapshot


@dataclass(frozen=True)
class WorkReport:
    """What a worker did: parts with a report now, parts of its share that were done before."""

    phase: str
    done: int
    skipped: int


@dataclass
class TableCommit:
    """Reports on one table: committed now, committed before, second ones on a part, made from what has changed, unreadable.

    `left` are parts of the table that are still to be done.
    """

    table: str
    committed: int = 0
    before: int = 0
    twins: int = 0
    stale: int = 0
    unreadable: int = 0
    left: int = 0


@dataclass(frozen=True)
class CommitReport:
    """What a commit did, table by table."""

    tables: tuple[TableCommit, ...] = field(default=())

    def require(self) -> None:
        """Raises PartsFailed when parts are still to be done."""
        for told in self.tables:
            if told.left:
                raise PartsFailed(f"{told.table}: {told.left:,} parts are still to be done: give the workers' command again, then this one")


def work(pool: Pool, phase: Phase, settings: EngineSettings, parts: Iterable[int] | None, progress: Progress | None = None) -> WorkReport:
    """Does the phase's open parts among `parts` (default: this Slurm task's share of all) and leaves a report on each.

    Claims nothing, commits nothing. What has a report already is not done again. Raises PartsFailed for parts that could
    not be done, UsageError, and what a worker raises.
    """
    pool.require_disk("work without a driver")
    refuse_unfinished(pool)
    everything, orders = open_parts(pool, phase)
    wanted = set(share_of(everything, *place_in_job()) if parts is None else parts)
    mine = {order.part: order for order in orders if order.part in wanted}
    for name in reports.names(pool, phase.table):
        left = reports.read(pool, phase.table, name) if int(name.split("-", 1)[0]) in mine else None
        if left and reports.answers(left, mine[left.report.part]):
            del mine[left.report.part]
    done = _work(pool, phase, list(mine.values()), settings, progress or Silent())
    return WorkReport(phase.name, done, len(wanted & set(everything)) - done)


def work_order(folder: Path, progress: Progress | None = None) -> WorkReport:
    """This Slurm task's share of an order that the Slurm engine gave; tells it what failed. Raises what `work` raises."""
    order = Order.read(folder)
    mine = set(share_of([task.part for task in order.tasks], *place_in_job()))
    tasks = [task for task in order.tasks if task.part in mine]
    try:
        done = _work(Pool.open(order.tasks[0].pool), order.phase, tasks, order.settings, progress or Silent(), folder)
    except PartsFailed:
        raise
    except CurateError as error:
        _write(folder, STOP, pickle.dumps(error))
        raise
    return WorkReport(order.phase.name, done, 0)


def _work(
    pool: Pool, phase: Phase, tasks: Sequence[PartTask], settings: EngineSettings, progress: Progress, folder: Path | None = None
) -> int:
    identity, orders, failures = phase.identity(), {task.part: task for task in tasks}, list[PartFailure]()
    progress.start(phase.name, len(tasks), "parts")
    for outcome in LocalEngine(settings).each(phase, tasks):
        if isinstance(outcome, PartReport):
            reports.leave(pool, phase, identity, orders[outcome.part], outcome)
        else:
            failures.append(outcome)
            if folder:
                _write(folder, f"{outcome.part}{FAILED}", pickle.dumps(outcome))
        progress.advance(phase.name, 1, failed=len(failures))
    progress.finish(phase.name)
    if failures:
        raise PartsFailed(f"{phase.name}: {len(failures)} of {len(tasks)} parts failed; part {failures[0].part}: {failures[0].message}")
    return len(tasks)


def _write(folder: Path, name: str, content: bytes) -> None:
    """For the driver, if it still lives."""
    if folder.is_dir():
        (folder / f".{name}").write_bytes(content)
        (folder / f".{name}").replace(folder / name)


# -- commit


def commit(pool: Pool, run: Run, settings: EngineSettings, progress: Progress | None = None) -> CommitReport:
    """Takes what workers reported into the tables, in waves, and deletes the reports that are done with.

    Reports that were made from tables that have changed since are refused, and of two on one part the second; reports that
    cannot be read stay where they are. Committing twice changes nothing. Raises PoolBusy, Fenced.
    """
    pool.require_disk("curate commit")
    told = [_commit_table(pool, run, settings, table, progress or Silent()) for table in reports.tables(pool)]
    return CommitReport(tuple(told))


def _commit_table(pool: Pool, run: Run, settings: EngineSettings, table: str, progress: Progress) -> TableCommit:
    told, names = TableCommit(table), reports.names(pool, table)
    progress.start(table, len(names), "reports")
    counter, waves = _Counter(pool, run, told), Waves(run, table, settings)
    finished = list[Path]()
    for name in names:
        left = reports.read(pool, table, name)
        if left is None:
            told.unreadable += 1
        else:
            finished.append(left.path)
            if counter.takes(left):
                waves.add(left.report)
        progress.advance(table, 1)
    waves.flush()
    for path in finished:
        path.unlink(missing_ok=True)
    told.left = counter.left()
    progress.finish(table)
    return told


class _Counter:
    """Judges the reports on one table, one by one."""

    def __init__(self, pool: Pool, run: Run, told: TableCommit) -> None:
        self.pool, self.run, self.told = pool, run, told
        self.identity: str | None = None
        self.inputs: dict[str, Snapshot] = {}
        self.first = ""  # the input that says which parts there are
        self.mine = pool.snapshot(told.table)
        self.taken: dict[int, str] = {}

    def takes(self, left: Left) -> bool:
        """Whether the report is to be committed; counts why not."""
        part, files = left.report.part, {file.path for file in left.report.files if file.table == left.table}
        committed = self.mine.by_part.get(part)
        if part in self.taken:
            self.told.twins += 1
        elif left.without or not self._begun(left) or not self._is_current(left):
            self.told.stale += 1
        elif committed and committed.path in files and committed.basis == left.basis:
            self.told.before += 1
        elif (committed.path if committed else None) != left.previous or not left.is_whole:
            self.told.stale += 1
        else:
            self.taken[part] = left.basis
            self.told.committed += 1
            return True
        return False

    def _begun(self, left: Left) -> bool:
        """Takes the table with the first report; all others must be of the same phase and settings."""
        if self.identity is None:
            self.run.add(left.table, reports.schema_of(self.pool, left))
            self.mine = self.pool.snapshot(left.table)  # under lease: from here on nobody else changes it
            hold_identity(self.pool, left.table, left.table.split("_")[0], left.identity)
            self.identity, self.first = left.identity, next(iter(left.inputs))
            self.inputs = {name: self.pool.snapshot(name) for name in (*left.inputs, *left.absent)}
        return left.identity == self.identity

    def _is_current(self, left: Left) -> bool:
        return left.basis == self._basis(left.report.part)

    def _basis(self, part: int) -> str | None:
        """What a file of this part would be computed from now."""
        there = {name: found for name, found in self.inputs.items() if found.version >= 0}
        if any(part not in found.by_part for found in there.values()) or self.identity is None:
            return None
        return part_basis(self.identity, {name: found.by_part[part].path for name, found in there.items()})

    def left(self) -> int:
        """Parts that are still to be done."""
        if self.identity is None:
            return 0
        done = {part: file.basis for part, file in self.mine.by_part.items()} | self.taken
        return sum(done.get(part) != self._basis(part) for part in self.inputs[self.first].by_part)


# -- which parts


def parts_said(text: str) -> range:
    """`0-249` or `7` as part numbers, both ends included. Raises UsageError."""
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (last.isdigit() or not dash)) or int(last or first) < int(first):
        raise UsageError(f"{text!r} is no range of parts: write two numbers, both included, for example  0-249")
    return range(int(first), int(last or first) + 1)
