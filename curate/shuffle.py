"""The verb *group*, on any engine: lines that share a key meet in one task, over files in the pool's tmp folder.

A grouping is a chain of **rounds**. Each task of a round reads a chunk of the pool or one bucket of earlier **exchanges**
and emits lines into new ones. An exchange is a set of Arrow files with one record batch per bucket, so that a reader of
bucket *i* touches batch *i* of every file. Rounds run through `Engine.each`, like any phase: every engine groups, no
engine needs code for it, a killed worker costs its task a try, and a finished task is never done again. What fits one
bucket is done where the call stands, in memory.

A round is vectorised: it sees a whole bucket, never a key. A key with more lines than memory holds is met chunk by chunk
(`Gathered.chunks`), and collapsed by whoever reads it to one node with a count.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.stage import Crew, PartFile, PartReport, PartTask, Resources, fingerprint
from curate.store import Pool

MOST_BUCKETS = 4096  # more lines than these hold make buckets larger: files that are read by everyone stay few and large
CHUNK_BYTES = 128 << 20  # of lines that are handed over, or written, at once
_DONE = "done"
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True)
class Lines:
    """What an exchange carries: columns, and the one (64-bit integers) that says which lines meet.

    A `placed` exchange takes the key itself for the bucket's number, any other a hash of it.
    """

    schema: pa.Schema
    key: str
    placed: bool = False


class Gathered:
    """The lines of one task's bucket in one exchange; of all buckets when `bucket` is None. What was never written lies `near`."""

    def __init__(self, schema: pa.Schema, files: Sequence[Path], bucket: int | None, near: Sequence[pa.Table] = ()) -> None:
        self.schema, self._files, self._bucket, self._near = schema, files, bucket, near

    def chunks(self) -> Iterator[pa.Table]:
        """All lines in pieces of up to `CHUNK_BYTES`, as they came; may be asked for again and gives the same pieces."""
        waiting: list[pa.RecordBatch] = []
        for batch in self._batches():
            if waiting and sum(one.nbytes for one in waiting) + batch.nbytes > CHUNK_BYTES:
                yield pa.Table.from_batches(waiting, self.schema).combine_chunks()
                waiting = []
            waiting.append(batch)
        if waiting:
            yield pa.Table.from_batches(waiting, self.schema).combine_chunks()

    def table(self, *order: str) -> pa.Table:
        """All lines at once, sorted by these columns."""
        whole = pa.Table.from_batches(self._batches(), self.schema).combine_chunks()
        return whole.sort_by([(name, "ascending") for name in order]) if order else whole

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for table in self._near:
            yield from table.to_batches()
        for path in self._files:
            with path.open("rb") as stream, pa.ipc.open_file(stream) as found:
                wanted = range(found.num_record_batches) if self._bucket is None else [self._bucket]
                for number in wanted:
                    batch = found.get_batch(number)
                    if batch.num_rows:
                        yield batch


class Out:
    """Where a round's task puts what it found."""

    def __init__(self, pool: Pool, folder: str, task: int, buckets: int, emits: Mapping[str, Lines]) -> None:
        self._pool, self._folder, self._task, self._buckets = pool, folder, task, buckets
        self._open = {name: _Exchange(lines) for name, lines in emits.items()}
        self.near: dict[str, list[pa.Table]] = {}  # what stays in this process: the lines of a grouping that has one bucket
        self.files: list[PartFile] = []
        self.counters: dict[str, float] = {}

    def emit(self, exchange: str, lines: pa.Table | Mapping[str, object]) -> None:
        """Sends lines on; a mapping holds one array for each column."""
        waiting = self._open[exchange]
        waiting.take(lines)
        if waiting.size_bytes > CHUNK_BYTES:
            self._write(exchange)

    def count(self, name: str, number: float) -> None:
        """Adds to a number that the driver sees as the sum over all tasks."""
        self.counters[name] = self.counters.get(name, 0.0) + number

    def commit(self, file: PartFile) -> None:
        """Hands a published file of a table over, to be committed by the driver."""
        self.files.append(file)

    def close(self) -> None:
        """Writes what is still held."""
        for exchange, waiting in self._open.items():
            if waiting.rows:
                self._write(exchange)

    def report(self) -> PartReport:
        """What an engine hands back; also left beside the exchanges, so that a later call need not do the task again."""
        report = PartReport(self._task, tuple(self.files), counters=self.counters)
        if self._buckets == 1:
            return report
        temporary = self._pool.temporary(".json")
        temporary.write_text(json.dumps({"files": [vars(file) for file in report.files], "counters": self.counters}))
        self._pool.publish(temporary, f"{self._folder}/{_DONE}", f"{self._task:05d}")
        return report

    def _write(self, exchange: str) -> None:
        waiting = self._open[exchange]
        self.count(f"lines of {exchange}", waiting.rows)
        if self._buckets == 1:
            self.near.setdefault(exchange, []).append(waiting.whole())
            return
        temporary = self._pool.temporary(".arrow")
        with pa.OSFile(str(temporary), "wb") as stream, pa.ipc.new_file(stream, waiting.lines.schema, options=_WRITE) as file:
            for batch in waiting.leave(self._buckets):
                file.write_batch(batch)
        size_bytes = temporary.stat().st_size
        name = self._pool.publish(temporary, f"{self._folder}/{exchange}", f"{self._task:05d}-{waiting.files:05d}")
        waiting.files += 1
        self.files.append(PartFile(exchange, self._task, name, size_bytes, 0, ""))


class _Exchange:
    """Lines that one task holds back until they are worth a file."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.files = lines, 0
        self._waiting: list[pa.Table] = []
        self.rows = self.size_bytes = 0

    def take(self, lines: pa.Table | Mapping[str, object]) -> None:
        table = lines if isinstance(lines, pa.Table) else pa.table(dict(lines), self.lines.schema)
        if table.num_rows:
            self._waiting.append(table)
            self.rows += table.num_rows
            self.size_bytes += table.nbytes

    def whole(self) -> pa.Table:
        """All of them, which are then no longer held."""
        whole = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self.rows, self.size_bytes = [], 0, 0
        return whole

    def leave(self, buckets: int) -> Iterator[pa.RecordBatch]:
        """One batch for each bucket, in order."""
        whole = self.whole()
        bucket = self._bucket(whole, buckets)
        order = np.argsort(bucket, kind="stable")
        whole, bucket = whole.take(pa.array(order)).combine_chunks(), bucket[order]
        borders = np.searchsorted(bucket, np.arange(buckets + 1)).tolist()
        batch = whole.to_batches()[0]
        for low, high in itertools.pairwise(borders):
            yield batch.slice(low, high - low)

    def _bucket(self, table: pa.Table, buckets: int) -> NDArray[np.uint16]:
        key = table.column(self.lines.key).to_numpy().astype(np.uint64, copy=False)
        number = key if self.lines.placed else mixed(key) % np.uint64(buckets)
        return number.astype(np.uint16)  # sorted by radix


def mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits of which each depends on every bit of the key (the finaliser of splitmix64; Steele et al., OOPSLA 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


class Round(Protocol):
    """One step of a grouping; picklable, since workers receive it."""

    @property
    def name(self) -> str:
        """For people; a chain may hold it several times."""

    @property
    def reads(self) -> Sequence[str]:
        """Exchanges whose bucket a task is given."""

    @property
    def emits(self) -> Mapping[str, Lines]:
        """Exchanges that it writes; one that exists already is added to."""

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """Does one bucket, or one chunk of the pool, whose files are the task's inputs."""


@dataclass(frozen=True)
class _RoundPhase:
    """A round as an engine sees it."""

    round: Round
    folder: str
    buckets: int
    files: Mapping[str, tuple[str, ...]]  # of each exchange that it reads, below the pool
    schemas: Mapping[str, pa.Schema]
    whole: bool = False  # the only task reads every bucket

    table = ""
    inputs = ()
    schema = pa.schema([])
    resources = Resources(memory_bytes=2 << 30)

    @property
    def name(self) -> str:
        return self.round.name

    def identity(self) -> str:
        return fingerprint("round", self.folder, self.name)

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        yield self._do

    def _do(self, task: PartTask) -> PartReport:
        out = self.out(task, {})
        out.count("peak_bytes", _peak_bytes())
        return out.report()

    def out(self, task: PartTask, near: Mapping[str, Sequence[pa.Table]]) -> Out:
        """Does a task; `near` are exchanges that were never written."""
        pool = Pool.open(task.pool)
        out = Out(pool, self.folder, task.part, self.buckets, self.round.emits)
        bucket = None if self.whole else task.part
        given = {}
        for name in self.round.reads:
            files = [pool.path / file for file in self.files[name]]
            given[name] = Gathered(self.schemas[name], files, bucket, near.get(name, ()))
        self.round.run(task, given, out)
        out.close()
        return out


@dataclass
class Found:
    """What a round left beside its exchanges: files to commit, counters added up over its tasks, and the most of each in one task."""

    files: list[PartFile] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)


class Shuffle:
    """A chain of rounds over one pool; remembers on disk which are done, so that the same chain given again resumes."""

    def __init__(self, pool: Pool, name: str, basis: str, rows: int, crew: Crew, after_round: Callable[[], None] | None = None) -> None:
        """`name` is whose grouping it is (one at a time), `basis` what it depends on; `rows` says how many lines there are."""
        self.pool, self.crew, self._after_round = pool, crew, after_round
        self.buckets = min(max(1, -(-rows // crew.bucket_rows)), MOST_BUCKETS)
        self._parent = f"tmp/shuffle-{name}"
        self.folder = f"{self._parent}/{fingerprint(basis, str(self.buckets))}"
        self.files: dict[str, tuple[str, ...]] = {}
        self.schemas: dict[str, pa.Schema] = {}
        self._lines: dict[str, int] = {}
        self._near: dict[str, list[pa.Table]] = {}
        self._rounds = 0
        self._resumes = (pool.path / self.folder).is_dir()
        if not self._resumes:
            self.close()  # what a grouping of other rows left

    def run(self, round: Round, tasks: Sequence[PartTask] | None = None, whole: bool = False) -> Found:
        """Has every task of a round done, by workers unless all lines fit one bucket. `tasks`: work orders numbered from 0,
        by default one for each bucket; `whole`: one task for all buckets.

        Raises PartsFailed, and whatever stops an engine.
        """
        folder, self._rounds = f"{self.folder}/{self._rounds:04d}", self._rounds + 1
        tasks = (
            [PartTask(str(self.pool.path), number, {}, "") for number in range(1 if whole else self.buckets)] if tasks is None else tasks
        )
        tasks = [task if task.basis else replace(task, basis=folder) for task in tasks]  # one round's report says nothing of the next
        read = {name: self.files.get(name, ()) for name in round.reads}
        phase = _RoundPhase(round, folder, self.buckets, read, {name: self.schemas[name] for name in round.reads}, whole)
        found = self._taken(round, self._reports(folder, phase, tasks))
        if self._after_round:
            self._after_round()
        self.schemas.update({name: lines.schema for name, lines in round.emits.items()})
        return found

    def put(self, name: str, lines: Lines, table: pa.Table) -> None:
        """Fills an exchange from memory."""
        out = Out(self.pool, f"{self.folder}/{name}", 0, self.buckets, {name: lines})
        out.emit(name, table)
        out.close()
        self._keep(out)
        self.schemas[name] = lines.schema
        self.files[name] = tuple(file.path for file in out.files)

    def drop(self, *names: str) -> None:
        """Deletes exchanges that no later round reads."""
        for name in names:
            self._near.pop(name, None)
            self._lines.pop(name, None)
            for path in self.files.pop(name, ()):
                (self.pool.path / path).unlink(missing_ok=True)

    def read(self, name: str) -> pa.Table:
        """A whole exchange, in memory."""
        files = [self.pool.path / path for path in self.files.get(name, ())]
        return Gathered(self.schemas[name], files, None, self._near.get(name, ())).table()

    def lines(self, name: str) -> int:
        """How many lines an exchange holds."""
        return self._lines.get(name, 0)

    def close(self) -> None:
        """Deletes everything."""
        _delete(self.pool.path / self._parent)

    def _reports(self, folder: str, phase: _RoundPhase, tasks: Sequence[PartTask]) -> Iterator[PartReport]:
        """Of every task; those that an earlier call left are read back."""
        done = _read_reports(self.pool.path / folder / _DONE) if self._resumes else {}
        yield from done.values()
        left = [task for task in tasks if task.part not in done]
        if self.buckets > 1:
            yield from self.crew.each(phase, left) if left else ()
            return
        for task in left:
            out = phase.out(task, self._near)
            self._keep(out)
            yield out.report()

    def _keep(self, out: Out) -> None:
        for name, tables in out.near.items():
            self._near.setdefault(name, []).extend(tables)

    def _taken(self, round: Round, reports: Iterator[PartReport]) -> Found:
        """Files of exchanges are remembered in the order of the tasks, so that a later round meets its lines in one order."""
        found, sent = Found(), {name: list[PartFile]() for name in round.emits}
        for report in reports:
            for file in report.files:
                sent.get(file.table, found.files).append(file)
            for name, number in report.counters.items():
                found.counters[name] = found.counters.get(name, 0.0) + number
                found.most[name] = max(found.most.get(name, 0.0), number)
        for name, files in sent.items():
            self.files[name] = (*self.files.get(name, ()), *sorted(file.path for file in files))
            self._lines[name] = self._lines.get(name, 0) + int(found.counters.get(f"lines of {name}", 0))
        return found


def _peak_bytes() -> int:
    """The most memory that this process has held since it began; getrusage would tell its parent's. 0 where there is no /proc."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _read_reports(folder: Path) -> dict[int, PartReport]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        task, said = int(path.name.split("-")[0]), json.loads(path.read_text())
        found[task] = PartReport(task, tuple(PartFile(**file) for file in said["files"]), counters=said["counters"])
    return found


def _delete(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink(missing_ok=True)
    if folder.is_dir():  # in an object store there are no folders
        shutil.rmtree(folder, ignore_errors=True)
