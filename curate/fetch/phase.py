"""The fetch phase: one part of `rows` becomes one part of `fetched`, a tar of images, and a line of telemetry per row."""

from __future__ import annotations

import datetime
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate import schema as schemas
from curate.fetch.client import RunFacts
from curate.fetch.disk import Disk, local_faults
from curate.fetch.notes import Notes, recall_notes, write_notes
from curate.fetch.part import Part, plan_part
from curate.fetch.peer import Img2datasetStage
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import RESULT_COLUMNS, TELEMETRY_COLUMNS, FetchStage
from curate.fetch.standing import TAR_COLUMNS, TELEMETRY, UNASKED, Elsewhere, Record, chosen, kept_telemetry, telemetry_basis
from curate.fetch.wish import WISH
from curate.media.tar import TarWriter
from curate.media.text import remove_controls
from curate.stage import WORKER_CRASHED, Again, Compute, PartReport, PartTask, Resources, attach, check
from curate.store import Pool
from curate.suppress import REASON as WITHDRAWN
from curate.suppress import Suppression, read_suppression

_REQUESTS = pa.schema([("url", pa.string()), ("skip", pa.string()), ("wish", WISH)])


@dataclass(frozen=True)
class FetchPhase:
    """Requests each URL of a part once and stores what comes back.

    Rows that plan or prefilter refused keep that reason and are never requested. With `task.previous`, rows that are
    done there (fetched, or failed for good) are taken over unchanged, and only the difference is requested; its bytes
    go to a further tar. With `task.again` the difference is the rows that it chooses. What a part of an earlier list
    holds of a URL is taken over as well. The caller passes `previous` only when this phase's identity is the same as then.
    `opt_out_date` is the pool's day for opt-outs with a date.
    """

    settings: FetchSettings = field(default_factory=FetchSettings)
    opt_out_date: datetime.date | None = None
    name: str = "fetch"
    table: str = "fetched"
    inputs: tuple[str, ...] = ("rows", "decisions_prefilter")
    also: tuple[str, ...] = (TELEMETRY,)
    again: tuple[str, ...] = ("deferred_politeness",)

    def later(self, number: int) -> FetchPhase:
        """Waits twice as long for a busy domain in each pass, so that passes grow with the logarithm of the time."""
        seconds = self.settings.patience_seconds * 2**number
        return replace(self, settings=self.settings.model_copy(update={"patience_seconds": seconds}))

    def chosen(self, task: PartTask) -> int:
        """How many URLs of the part `task.again` chooses."""
        return len(chosen(task))

    def after(self, task: PartTask, report: PartReport) -> PartTask:
        """What has been asked is not asked again: the report's files are the part's earlier ones."""
        tables = Pool(Path(task.pool)).table_folder
        written = {file.table: str(tables(file.table) / file.path) for file in report.files}
        beside = {name: written[name] for name in self.also}
        return replace(task, previous=written[self.table], beside={**task.beside, **beside}, again=Again((WORKER_CRASHED,)))

    @property
    def stage(self) -> FetchStage | Img2datasetStage:
        """The stage that does the requests of one worker."""
        run = RunFacts(self.opt_out_date)
        return Img2datasetStage(self.settings, run) if self.settings.backend == "img2dataset" else FetchStage(self.settings, run)

    @property
    def schema(self) -> pa.Schema:
        """Of table `fetched`."""
        return schemas.table(self.table)

    @property
    def resources(self) -> Resources:
        """Those of the stage."""
        return self.stage.resources

    def identity(self) -> str:
        """That of the stage."""
        return self.stage.identity()

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        """Opens the client once; yields the function that fetches one part, which several threads may call."""
        stage = self.stage
        check([stage], _REQUESTS)
        with stage.open() as compute:
            yield _Worker(self.settings, partial(attach, stage, compute), stage.run.notes).fetch


@dataclass
class _Worker:
    """What the parts of one worker share."""

    settings: FetchSettings
    compute: Compute
    notes: Notes
    disk: Disk = field(default_factory=Disk)
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    recalled: set[str] = field(default_factory=set)
    recalling: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Loads what the end of a part needs now, when nothing waits for it: pandas by pyarrow, DuckDB by schemas."""
        for name in ("fetched", TELEMETRY, "robots"):
            schemas.table(name)
        pa.table({"nothing": [None]})

    def fetch(self, task: PartTask) -> PartReport:
        """One part."""
        pool = Pool.open(task.pool)
        with self.recalling:  # parts that begin together wait for it together
            if task.pool not in self.recalled:
                recall_notes(pool)
                self.recalled.add(task.pool)
        suppression = read_suppression(pool)
        with local_faults(pool):
            part = plan_part(task, pool, self.settings, self.elsewhere, suppression)
            with self.disk.room(pool, task.part, len(part.owners)):
                _request(part, pool, task.part, self.compute, self.settings.batch_rows, suppression)
        self.disk.learn(part.done)
        return self._report(part, pool, task)

    def _report(self, part: Part, pool: Pool, task: PartTask) -> PartReport:
        fetched = [part.record(index) for index in range(len(part.rows))]
        written = pool.write_part("fetched", task.part, _table(part.rows, fetched, (*RESULT_COLUMNS, *TAR_COLUMNS)), task.basis)
        lines = _telemetry(part, kept_telemetry(task))
        beside = pool.write_part(TELEMETRY, task.part, lines, telemetry_basis(task.basis, written.path))
        said = write_notes(pool, task.part, self.notes, task.basis)
        reasons = Counter(str(record["reason"] or "ok") for record in fetched)
        return PartReport(task.part, (written, beside, *([said] if said else [])), dict(reasons), _counters(part))


# -- requests and the tar


def _request(part: Part, pool: Pool, number: int, compute: Compute, batch_rows: int, suppression: Suppression) -> None:
    """Fills `part.done`, and publishes the tar of the new images if there are any."""
    owners = list(part.owners.values())
    temporary = pool.temporary(".tar")
    try:
        with TarWriter(temporary) as tar:
            outcomes = _outcomes(compute(_batches(part.rows, owners, batch_rows)))
            for index, (columns, image) in zip(owners, outcomes, strict=True):
                if suppression.holds_bytes(columns["sha256"], columns["image_sha256"]):
                    columns, image = _withheld(columns), None  # before it touches the disk
                part.done[index] = columns if image is None else columns | _store(tar, part.rows[index], columns, image)
            empty = not tar.size_bytes
        if not empty:
            path = pool.publish(temporary, "tars", f"{number:05d}")
            for columns in part.done.values():
                if columns.get("tar_offset") is not None:
                    columns["tar_file"] = path
    finally:
        temporary.unlink(missing_ok=True)


def _batches(rows: Sequence[Record], owners: list[int], batch_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(owners), batch_rows):
        asked = [rows[index] for index in owners[start : start + batch_rows]]
        urls, wishes = pa.array([row["url"] for row in asked], pa.string()), pa.array([row.get("wish") for row in asked], WISH)
        yield pa.record_batch([urls, pa.nulls(len(asked), pa.string()), wishes], schema=_REQUESTS)


def _outcomes(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    for batch in batches:
        for record in batch.to_pylist():
            image = record.pop("image")
            yield record, image


def _withheld(columns: Record) -> dict[str, object]:
    """What may be said of a body that is on the suppression list: that it came, and nothing of what it shows."""
    kept = ("http_status", *TELEMETRY_COLUMNS)
    return {**dict.fromkeys(columns), **{name: columns[name] for name in kept if name in columns}, "reason": WITHDRAWN}


def _store(tar: TarWriter, row: Record, columns: Record, image: bytes) -> dict[str, object]:
    """Image and caption as neighbours, named by the sample, as WebDataset readers want them."""
    offset = tar.add(f"{row['sample_id']}.{columns['format']}", image)
    tar.add(f"{row['sample_id']}.txt", remove_controls(str(row["caption"] or "")).encode())
    return {"tar_offset": offset, "tar_size": len(image)}


# -- tables


def _table(rows: Sequence[Record], records: Sequence[Record], names: Iterable[str]) -> pa.Table:
    columns = {name: [record.get(name) for record in records] for name in names}
    return pa.table({"row": pa.array([row["row"] for row in rows], pa.int32()), **columns})


def _telemetry(part: Part, kept: list[Record]) -> pa.Table:
    """One line per row; rows that were not requested themselves keep their line of an earlier pass, or have zero attempts."""
    before = kept if len(kept) == len(part.rows) else [UNASKED] * len(part.rows)
    records = [part.done.get(index, line) for index, line in enumerate(before)]
    lines = _table(part.rows, records, TELEMETRY_COLUMNS)
    return lines.append_column("phase", pa.repeat(pa.scalar("fetch"), len(records)))


def _counters(part: Part) -> dict[str, float]:
    """What the part cost; requests and bytes only where the stage tells them."""
    done = part.done.values()
    told = {"requests": "attempts", "bytes_read": "bytes_read"}
    sums = {name: [int(str(record[column])) for record in done if record[column] is not None] for name, column in told.items()}
    return {
        **{name: float(sum(numbers)) for name, numbers in sums.items() if numbers or not done},
        "urls": float(len(part.owners)),
        "images": float(sum(record.get("tar_offset") is not None for record in done)),
        "rows_reused": float(len(part.earlier)),
    }
