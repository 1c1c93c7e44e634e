"""The stage contract: what a unit of row-wise work declares, and the narrow waist through which all of it runs.

A **stage** is a frozen settings object: `version`, the columns it `needs`, the columns it `adds`, and `open()`, which
builds heavy things once on the worker and yields a function *iterator of batches → iterator of added columns*. A stage
only adds: row count and order never change. A row that cannot be served gets a reason; an exception is a bug.

A **phase** is the worker's whole job between two commits: it reads one part, applies stages, writes the part's files
and reports them. Engines see phases and part numbers, nothing else.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import pyarrow as pa

from curate.errors import SchemaError
from curate.schema import nearest

Compute = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Takes batches, yields for each input batch one batch that holds just the added columns, same length, same order."""


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage occupies, and how many parts it does side by side (in threads, where work waits)."""

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 512 << 20
    parts_at_once: int = 1


@runtime_checkable
class Stage(Protocol):
    """Row-wise work; see the module's text."""

    @property
    def version(self) -> int:
        """Raised by hand when the same settings would give other values."""

    @property
    def needs(self) -> pa.Schema:
        """Columns that must be there, with their types."""

    @property
    def adds(self) -> pa.Schema:
        """Columns that the stage returns."""

    def identity(self) -> str:
        """Fingerprint of class, version, settings and weights; see `identity_of`."""

    def open(self) -> AbstractContextManager[Compute]:
        """Builds models and clients once on the worker."""


@dataclass(frozen=True)
class Again:
    """Which rows of a finished part are to be done once more: those that ended with one of these reasons.

    With `before`, only those that were last asked before that moment (UTC), or of which nobody knows when.
    """

    reasons: tuple[str, ...]
    before: datetime.datetime | None = None


WORKER_CRASHED = "worker_crashed"
"""Reason of the rows that a task leaves out."""


@dataclass(frozen=True)
class PartTask:
    """One part's work order; small and picklable, so that engines move names and not images."""

    pool: str
    part: int
    inputs: Mapping[str, str]  # table name -> absolute path of the part's Parquet file
    basis: str
    previous: str | None = None  # this phase's committed file of the same part, when it is to be brought up to date
    beside: Mapping[str, str] = field(default_factory=dict)  # further table that the phase writes -> its committed file of the part
    again: Again | None = None  # with `previous`: these of its rows, and no others
    without: frozenset[int] = frozenset()  # `row` of those that end as `worker_crashed` instead of being worked on; see `Divisible`


@dataclass(frozen=True)
class PartFile:
    """A published table file of one part."""

    table: str
    part: int
    path: str  # relative to the table's folder
    size_bytes: int
    rows: int
    basis: str


@dataclass(frozen=True)
class PartReport:
    """What a worker hands back: the files to commit and what to tell the person who waits."""

    part: int
    files: tuple[PartFile, ...]
    reasons: Mapping[str, int] = field(default_factory=dict)  # reason, or "ok", -> rows
    counters: Mapping[str, float] = field(default_factory=dict)  # requests, bytes, model_calls, cpu_seconds, ...


class Phase(Protocol):
    """One kind of part work: `inputs` tables in, one part of `table` out (and side files)."""

    @property
    def name(self) -> str:
        """For example fetch."""

    @property
    def table(self) -> str:
        """Table that the phase writes."""

    @property
    def schema(self) -> pa.Schema:
        """Of that table."""

    @property
    def inputs(self) -> Sequence[str]:
        """Tables it reads; a part is stale when its file in one of them is another than last time."""

    @property
    def resources(self) -> Resources:
        """Of one worker."""

    def identity(self) -> str:
        """Changes whenever equal inputs would give other values."""

    def open(self) -> AbstractContextManager[Callable[[PartTask], PartReport]]:
        """On the worker: builds heavy things once, yields the function that does one part."""


@dataclass(frozen=True)
class Crew:
    """Who does a phase's tasks: an engine whose failures have become exceptions, and how much one of its tasks may hold.

    What a grouping (`curate.shuffle`) needs to know of an engine.
    """

    each: Callable[[Phase, Sequence[PartTask]], Iterator[PartReport]]
    bucket_rows: int  # lines in one bucket of a grouping; all of them are in memory at once


@runtime_checkable
class Repeatable(Phase, Protocol):
    """A phase that can do rows of a finished part once more and leave the others as they are.

    Its lists are worked on one after another: rows of a later list take over what an earlier one has.
    """

    @property
    def also(self) -> Sequence[str]:
        """Further tables that it writes; their committed files come with the task as `beside`."""

    @property
    def again(self) -> Sequence[str]:
        """Reasons of rows that a run does again, pass after pass, until none is left."""

    def later(self, number: int) -> Phase:
        """The phase as it works in the later pass of this number, from 1: more patient from pass to pass."""

    def chosen(self, task: PartTask) -> int:
        """How many URLs of the part `task.again` chooses; 0 when there is nothing to do."""


@runtime_checkable
class Divisible(Phase, Protocol):
    """A phase that can leave rows of a part out, so that those on which its worker dies can be found.

    Rows in `task.without` that it would have to work on end as `worker_crashed`; all others end as they would have.
    """

    def after(self, task: PartTask, report: PartReport) -> PartTask:
        """The order for the rows that were left out of `report`: what is done stands, where the phase can take it over."""


def identity_of(name: str, version: int, settings: Mapping[str, object]) -> str:
    """128 bits of sha256 over a stage's name, version and JSON-able settings, as 32 hex digits."""
    return fingerprint(name, str(version), json.dumps(settings, sort_keys=True, default=str))


def fingerprint(*texts: str) -> str:
    """128 bits of sha256 over the texts and their lengths, as 32 hex digits."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()[:32]


def part_basis(identity: str, files: Mapping[str, str]) -> str:
    """What a part's file is a function of: the phase's identity, and the part's file in each input table."""
    return fingerprint(identity, *(f"{name}/{path}" for name, path in sorted(files.items())))


def check(stages: Sequence[Stage], have: pa.Schema) -> pa.Schema:
    """Proves before any data moves that each stage finds what it needs; returns the schema after the last stage.

    Raises SchemaError naming stage, column, wanted and found.
    """
    for stage in stages:
        name = type(stage).__name__
        for wanted in stage.needs:
            if wanted.name not in have.names:
                raise SchemaError(f"{name} needs column {wanted.name!r}, which nothing before it adds{nearest(wanted.name, have.names)}")
            found = have.field(wanted.name)
            if found.type != wanted.type:
                raise SchemaError(f"{name} needs {wanted.name!r} as {wanted.type}, found {found.type}")
        for added in stage.adds:
            if added.name in have.names:
                raise SchemaError(f"{name} would add {added.name!r} a second time")
            have = have.append(added)
    return have


def apply(stages: Sequence[Stage], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Runs the chain over an iterator of batches: opens each stage once, yields each batch with all columns added.

    Stages may look ahead (a fetcher keeps many requests in flight); each must answer batch by batch, in order.
    Raises SchemaError when a stage changes the row count or returns other columns than it declared.
    """
    with ExitStack() as stack:
        stream: Iterator[pa.RecordBatch] = iter(batches)
        for stage in stages:
            stream = attach(stage, stack.enter_context(stage.open()), stream)
        yield from stream


def attach(stage: Stage, compute: Compute, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One stage that is open already: each batch comes out with the stage's columns added, its promises checked."""
    waiting: list[pa.RecordBatch] = []

    def remembered() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            waiting.append(batch)
            yield batch

    name = type(stage).__name__
    for added in compute(remembered()):
        if not waiting:
            raise SchemaError(f"{name} returned more batches than it was given")
        batch = waiting.pop(0)
        if added.num_rows != batch.num_rows or not added.schema.equals(stage.adds):
            raise SchemaError(f"{name} returned {added.num_rows} rows of {added.schema.names}, not {batch.num_rows} of {stage.adds.names}")
        yield pa.RecordBatch.from_arrays([*batch.columns, *added.columns], names=[*batch.schema.names, *added.schema.names])
    if waiting:
        raise SchemaError(f"{name} returned fewer batches than it was given")


def by_batch(function: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Compute:
    """Turns a plain batch function into a `Compute`."""
    return lambda batches: map(function, batches)
