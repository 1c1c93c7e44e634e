"""The fetch phase: one part of `rows` becomes one part of `fetched`, a tar of images, and a line of telemetry per row."""

from __future__ import annotations

import ctypes
import datetime
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from curate import schema as schemas
from curate.fetch.client import RunFacts
from curate.fetch.disk import Disk, local_faults
from curate.fetch.notes import Notes, recall_notes, write_notes
from curate.fetch.part import Part, plan_part
from curate.fetch.peer import Img2datasetStage
from curate.fetch.rows import RESULT_COLUMNS, TAR_COLUMNS, TELEMETRY_COLUMNS, Asked, FetchRows, Record
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage
from curate.fetch.standing import TELEMETRY, UNASKED, Elsewhere, chosen, kept_telemetry, telemetry_basis
from curate.media.tar import TarWriter
from curate.media.text import remove_controls
from curate.stage import WORKER_CRASHED, Again, PartReport, PartTask, Resources
from curate.store import Pool
from curate.suppress import REASON as WITHDRAWN
from curate.suppress import Suppression, read_suppression

_PARTS_AHEAD = 2  # planned, and not all of their rows begun: the next part is ready when one has begun, and further ones cost no memory


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
        with stage.open_rows() as fetch:
            yield _Worker(self.settings, fetch, stage.run.notes).fetch


@dataclass
class _Worker:
    """What the parts of one worker share."""

    settings: FetchSettings
    fetch_rows: FetchRows
    notes: Notes
    disk: Disk = field(default_factory=Disk)
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    recalled: set[str] = field(default_factory=set)
    recalling: threading.Lock = field(default_factory=threading.Lock)
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_PARTS_AHEAD))

    def __post_init__(self) -> None:
        """Loads what the end of a part needs now, when nothing waits for it: pandas by pyarrow, DuckDB by schemas.

        Arrow's own pool keeps what each thread once needed; the system's can be told to let go of it.
        """
        pa.set_memory_pool(pa.system_memory_pool())
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
        with local_faults(pool), ExitStack() as turn:
            turn.callback(self.turns.release)
            self.turns.acquire()
            part = plan_part(task, pool, self.settings, self.elsewhere, suppression)
            with self.disk.room(pool, task.part, len(part.owners)):
                _request(part, pool, task.part, self.fetch_rows, _batches(part, self.settings.batch_rows, turn.close), suppression)
        self.disk.learn(part.done.values("image_bytes"))
        report = self._report(part, pool, task)
        _let_go()
        return report

    def _report(self, part: Part, pool: Pool, task: PartTask) -> PartReport:
        fetched = _table(part, (*RESULT_COLUMNS, *TAR_COLUMNS), part.sources())
        written = pool.write_part("fetched", task.part, fetched, task.basis)
        lines = _telemetry(part, kept_telemetry(task))
        beside = pool.write_part(TELEMETRY, task.part, lines, telemetry_basis(task.basis, written.path))
        said = write_notes(pool, task.part, self.notes, task.basis)
        reasons = Counter(reason or "ok" for reason in fetched["reason"].to_pylist())
        return PartReport(task.part, (written, beside, *([said] if said else [])), dict(reasons), _counters(part))


def _let_go() -> None:
    """Gives memory that is free, and scattered, back to the system: a part's rows were many small things."""
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


# -- requests and the tar


def _request(part: Part, pool: Pool, number: int, fetch: FetchRows, batches: Iterable[Sequence[Asked]], suppression: Suppression) -> None:
    """Fills `part.done`, and publishes the tar of the new images if there are any."""
    temporary = pool.temporary(".tar")
    try:
        with TarWriter(temporary) as tar:
            for index, (columns, image) in zip(part.owners, fetch(batches), strict=True):
                if suppression.holds_bytes(columns.get("sha256"), columns.get("image_sha256")):
                    columns, image = _withheld(columns), None  # before it touches the disk
                part.done.add(columns if image is None else columns | _store(tar, *part.sample(index), columns, image))
            empty = not tar.size_bytes
        if not empty:
            part.done.name_tar(pool.publish(temporary, "tars", f"{number:05d}"))
    finally:
        temporary.unlink(missing_ok=True)


def _batches(part: Part, batch_rows: int, begun: Callable[[], None]) -> Iterator[list[Asked]]:
    """What is to be requested; `begun` is called when all of it has been taken."""
    yield from part.asked(batch_rows)
    begun()


def _withheld(columns: Record) -> dict[str, object]:
    """What may be said of a body that is on the suppression list: that it came, and nothing of what it shows."""
    kept = ("http_status", *TELEMETRY_COLUMNS)
    return {**{name: columns[name] for name in kept if name in columns}, "reason": WITHDRAWN}


def _store(tar: TarWriter, name: str, caption: str, columns: Record, image: bytes) -> dict[str, object]:
    """Image and caption as neighbours, named by the sample, as WebDataset readers want them."""
    offset = tar.add(f"{name}.{columns['format']}", image)
    tar.add(f"{name}.txt", remove_controls(caption).encode())
    return {"tar_offset": offset, "tar_size": len(image)}


# -- tables


def _table(part: Part, names: Iterable[str], sources: Sequence[int | Record]) -> pa.Table:
    columns = {name: part.done.column(name, sources) for name in names}
    return pa.table({"row": part.rows["row"].cast(pa.int32()), **columns})


def _telemetry(part: Part, kept: list[Record]) -> pa.Table:
    """One line per row; rows that were not requested themselves keep their line of an earlier pass, or have zero attempts."""
    before = kept if len(kept) == part.rows.num_rows else [UNASKED] * part.rows.num_rows
    lines = _table(part, TELEMETRY_COLUMNS, part.telemetry_sources(before))
    return lines.append_column("phase", pa.repeat(pa.scalar("fetch"), len(before)))


def _counters(part: Part) -> dict[str, float]:
    """What the part cost; requests and bytes only where the stage tells them."""
    told = {"requests": "attempts", "bytes_read": "bytes_read"}
    known = {name: [value for value in part.done.values(column) if isinstance(value, int)] for name, column in told.items()}
    return {
        **{name: float(sum(numbers)) for name, numbers in known.items() if numbers or not len(part.done)},
        "urls": float(len(part.owners)),
        "images": float(sum(offset is not None for offset in part.done.values("tar_offset"))),
        "rows_reused": float(len(part.earlier)),
    }
