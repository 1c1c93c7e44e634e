"""The fetch phase: one part of `rows` becomes one part of `fetched`, a tar of images, and a line of telemetry per row."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema as schemas
from curate.errors import REASONS, LocalFault
from curate.fetch.client import RunFacts
from curate.fetch.notes import Notes, recall_notes, write_notes
from curate.fetch.peer import Img2datasetStage
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import RESULT_COLUMNS, TELEMETRY_COLUMNS, FetchStage
from curate.fetch.wish import WISH, read_wishes, wish_columns
from curate.media.tar import TarWriter
from curate.media.text import remove_controls
from curate.stage import Compute, PartReport, PartTask, Resources, attach, check
from curate.store import Pool

Record = Mapping[str, object]
_TAR_COLUMNS = ("tar_file", "tar_offset", "tar_size")
_ROW_COLUMNS = ["row", "sample_id", "url_id", "url", "caption", "reason"]

_REQUESTS = pa.schema([("url", pa.string()), ("skip", pa.string()), ("wish", WISH)])


@dataclass(frozen=True)
class FetchPhase:
    """Requests each URL of a part once and stores what comes back.

    Rows that plan or prefilter refused keep that reason and are never requested. With `task.previous`, rows that are
    done there (fetched, or failed for good) are taken over unchanged, and only the difference is requested; its bytes
    go to a second tar. The caller passes `previous` only when this phase's identity is the same as then.
    `opt_out_date` is the pool's day for opt-outs with a date.
    """

    settings: FetchSettings = field(default_factory=FetchSettings)
    opt_out_date: datetime.date | None = None
    name: str = "fetch"
    table: str = "fetched"
    inputs: tuple[str, ...] = ("rows", "decisions_prefilter")

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
        """Opens the client once; yields the function that fetches one part."""
        stage = self.stage
        check([stage], _REQUESTS)
        recalled: set[str] = set()
        disk = _Disk()
        with stage.open() as compute:

            def fetch_part(task: PartTask) -> PartReport:
                if task.pool not in recalled:
                    recalled.add(task.pool)
                    recall_notes(Pool.open(task.pool))
                return _fetch_part(task, partial(attach, stage, compute), self.settings, stage.run.notes, disk)

            yield fetch_part


@dataclass
class _Part:
    """Rows of a part, and for each where its outcome comes from: a reason to skip, an earlier record, or a request."""

    rows: list[Record]
    skips: list[str | None]
    earlier: dict[int, Record]
    owners: dict[str, int]  # what is asked for -> index of the row in whose name it is requested
    done: dict[int, dict[str, object]] = field(default_factory=dict)  # owner's index -> result and telemetry columns

    def record(self, index: int) -> Record:
        """Columns of `fetched` for one row."""
        if self.skips[index] is not None:
            return {"reason": self.skips[index]}
        if index in self.earlier:
            return self.earlier[index]
        return self.done[self.owners[_asked(self.rows[index])]]


def _fetch_part(task: PartTask, compute: Compute, settings: FetchSettings, notes: Notes, disk: _Disk) -> PartReport:
    pool = Pool.open(task.pool)
    with _local_faults(pool):
        part = _plan(task, settings)
        disk.check(pool, task.part, len(part.owners))
        _request(part, pool, task.part, compute, settings.batch_rows)
    fetched = [part.record(index) for index in range(len(part.rows))]
    files = [
        pool.write_part("fetched", task.part, _table(part.rows, fetched, (*RESULT_COLUMNS, *_TAR_COLUMNS)), task.basis),
        pool.write_part("telemetry_fetch", task.part, _telemetry(part), task.basis),
    ]
    said = write_notes(pool, task.part, notes, task.basis)
    if said is not None:
        files.append(said)
    disk.learn(part)
    reasons = Counter(str(record["reason"] or "ok") for record in fetched)
    return PartReport(task.part, tuple(files), dict(reasons), _counters(part))


# -- what is to be requested


def _plan(task: PartTask, settings: FetchSettings) -> _Part:
    rows = _rows(task.inputs["rows"], settings)
    skips = _skips(rows, task.inputs.get("decisions_prefilter"))
    earlier = _earlier(task, len(rows), skips)
    known = {_asked(rows[index]): record for index, record in reversed(earlier.items())}
    owners: dict[str, int] = {}
    for index, row in enumerate(rows):
        if skips[index] is None and index not in earlier:
            asked = _asked(row)
            if asked in known:
                earlier[index] = known[asked]
            else:
                owners.setdefault(asked, index)
    return _Part(rows, skips, earlier, owners)


def _rows(path: str, settings: FetchSettings) -> list[Record]:
    """Lines of the part's rows, each with what the list says about the file: `wish`."""
    wanted = wish_columns(pq.read_schema(path).names, settings.blur_column, settings.verify_hash)
    table = pq.read_table(path, columns=[*_ROW_COLUMNS, *wanted.values()], partitioning=None)
    rows = table.select(_ROW_COLUMNS).to_pylist()
    return [{**row, "wish": wish} for row, wish in zip(rows, read_wishes(table, wanted), strict=True)] if wanted else rows


def _asked(row: Record) -> str:
    """Rows share one request when they share the URL and the list says the same about what is there."""
    wish = row.get("wish")
    return f"{row['url_id']} {wish}" if wish else str(row["url_id"])


def _skips(rows: list[Record], prefilter: str | None) -> list[str | None]:
    """Why each row is not requested: its own reason first, then the prefilter's."""
    own = [None if row["reason"] is None else str(row["reason"]) for row in rows]
    if prefilter is None:
        return own
    decisions = pq.read_table(prefilter, columns=["row", "keep", "reason"], partitioning=None)
    refused = {
        row: reason or "prefilter"
        for row, keep, reason in zip(*(decisions.column(name).to_pylist() for name in ("row", "keep", "reason")), strict=True)
        if reason or keep is False
    }
    return [reason or refused.get(row["row"]) for reason, row in zip(own, rows, strict=True)]


def _earlier(task: PartTask, rows: int, skips: list[str | None]) -> dict[int, Record]:
    """Records of the previous file that stand: fetched rows, and failures that another try would not mend."""
    if task.previous is None:
        return {}
    columns = [*RESULT_COLUMNS, *_TAR_COLUMNS]
    records = pq.read_table(Path(task.pool) / task.previous, columns=columns, partitioning=None).to_pylist()
    if len(records) != rows:
        return {}
    return {index: record for index, record in enumerate(records) if skips[index] is None and _stands(record["reason"])}


def _stands(reason: str | None) -> bool:
    """A refusal at plan or prefilter that no longer holds was never an answer of the web."""
    if reason is None:
        return True
    return reason in REASONS and not REASONS[reason].retryable and reason not in ("prefilter", "duplicate_row")


# -- requests and the tar


def _request(part: _Part, pool: Pool, number: int, compute: Compute, batch_rows: int) -> None:
    """Fills `part.done`, and publishes the tar of the new images if there are any."""
    owners = list(part.owners.values())
    temporary = pool.temporary(".tar")
    try:
        with TarWriter(temporary) as tar:
            outcomes = _outcomes(compute(_batches(part.rows, owners, batch_rows)))
            for index, (columns, image) in zip(owners, outcomes, strict=True):
                part.done[index] = columns if image is None else columns | _store(tar, part.rows[index], columns, image)
            empty = not tar.size_bytes
        if not empty:
            path = pool.publish(temporary, "tars", f"{number:05d}")
            for columns in part.done.values():
                if columns.get("tar_offset") is not None:
                    columns["tar_file"] = path
    finally:
        temporary.unlink(missing_ok=True)


def _batches(rows: list[Record], owners: list[int], batch_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(owners), batch_rows):
        asked = [rows[index] for index in owners[start : start + batch_rows]]
        urls, wishes = pa.array([row["url"] for row in asked], pa.string()), pa.array([row.get("wish") for row in asked], WISH)
        yield pa.record_batch([urls, pa.nulls(len(asked), pa.string()), wishes], schema=_REQUESTS)


def _outcomes(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[dict[str, object], bytes | None]]:
    for batch in batches:
        for record in batch.to_pylist():
            image = record.pop("image")
            yield record, image


def _store(tar: TarWriter, row: Record, columns: Record, image: bytes) -> dict[str, object]:
    """Image and caption as neighbours, named by the sample, as WebDataset readers want them."""
    offset = tar.add(f"{row['sample_id']}.{columns['format']}", image)
    tar.add(f"{row['sample_id']}.txt", remove_controls(str(row["caption"] or "")).encode())
    return {"tar_offset": offset, "tar_size": len(image)}


# -- tables


def _table(rows: list[Record], records: list[Record], names: Iterable[str]) -> pa.Table:
    columns = {name: [record.get(name) for record in records] for name in names}
    return pa.table({"row": pa.array([row["row"] for row in rows], pa.int32()), **columns})


def _telemetry(part: _Part) -> pa.Table:
    """One line per row; rows that were not requested themselves have zero attempts."""
    unasked: Record = {"attempts": 0, "bytes_read": 0}
    records = [part.done.get(index, unasked) for index in range(len(part.rows))]
    lines = _table(part.rows, records, TELEMETRY_COLUMNS)
    return lines.append_column("phase", pa.repeat(pa.scalar("fetch"), len(records)))


def _counters(part: _Part) -> dict[str, float]:
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


# -- this machine


@dataclass
class _Disk:
    """Refuses to begin a part that would fill the disk, going by the parts that this worker did before."""

    row_bytes: float = 24 << 10  # a picture of 256 pixels with its caption, until one part is done

    def check(self, pool: Pool, part: int, rows: int) -> None:
        """Raises LocalFault when less than twice is free of what `rows` requests may bring."""
        free, needed = shutil.disk_usage(pool.path).free, int(2 * rows * self.row_bytes)
        if free < needed:
            raise LocalFault(
                f"no room at {pool.path} to begin part {part}: {free >> 10:,} KiB free, {needed >> 10:,} KiB wanted; "
                f"nothing is lost, make room and run the same command again"
            )

    def learn(self, part: _Part) -> None:
        """Takes the mean size of a part's new pictures for that of the next."""
        sizes = [int(str(record["image_bytes"])) for record in part.done.values() if record.get("image_bytes")]
        if sizes:
            self.row_bytes = sum(sizes) / len(part.done) + 2048  # its headers, caption and rows of tables


@contextlib.contextmanager
def _local_faults(pool: Pool) -> Iterator[None]:
    """Rows never fail because of this machine's disk or descriptors; the run stops and can be resumed."""
    try:
        yield
    except OSError as error:
        place = error.filename or pool.path
        raise LocalFault(f"{place}: {error.strerror or error}; nothing is lost, run the same command again") from error
