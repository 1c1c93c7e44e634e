"""The Slurm engine: parts are spread over the tasks of a job array; each leaves reports in the pool, which the driver reads.

The driver (`curate run … --engine slurm`, on a login node or in a small job) writes an order into the pool, gives it to
`sbatch --wait --array`, and looks for reports while the array runs. No connection is opened between machines: all that
is needed is the shared file system and `sbatch` on PATH. An array task runs `curate work`, which is the local engine.
Reports of tasks that outlived their driver are taken up by the next run of the same command.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from curate.engines import reports
from curate.engines.base import EngineSettings, PartFailure
from curate.errors import CurateError, LocalFault, UsageError
from curate.stage import PartReport, PartTask, Phase
from curate.store import Pool

ORDER = "order.pickle"
STOP = "stop.pickle"  # what a worker raised that ends the whole run
FAILED = ".failed"  # suffix of the files that say why a part failed
LOGS = "logs/slurm"  # below the pool: what array tasks print
_SETTLE_SECONDS = 3.0  # after the array has ended: names written by other machines may show up late on NFS
_POLL_SECONDS = (0.1, 5.0)


@dataclass(frozen=True)
class Order:
    """What array tasks are to do: the phase and its parts, and how each machine is to be used."""

    phase: Phase
    tasks: Sequence[PartTask]
    settings: EngineSettings

    @classmethod
    def read(cls, folder: Path) -> Order:
        """The order in a folder. Raises UsageError when its driver is gone and with it the order."""
        try:
            found: Order = pickle.loads((folder / ORDER).read_bytes())
        except FileNotFoundError:
            raise UsageError(f"{folder} holds no order: the run that gave it has ended; give its command again") from None
        return found


def make(settings: EngineSettings) -> SlurmEngine:
    """What `curate.run.make_engine` asks every engine's module for."""
    return SlurmEngine(settings)


class SlurmEngine:
    """Job arrays. A task that ends without reports on all its parts costs those a try."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`."""
        if not tasks:
            return
        pool = Pool.open(tasks[0].pool)
        pool.require_disk("the Slurm engine")
        desk = _Desk(pool, phase.table, {task.part: task for task in tasks})
        yield from desk.new()
        vain = 0
        while desk.waiting and vain < self.settings.tries:
            before = len(desk.waiting)
            with self._ordered(pool, phase, list(desk.waiting.values())) as job:
                yield from _heard(job, desk)
            vain = 0 if len(desk.waiting) < before else vain + 1
        for part in sorted(desk.waiting):
            yield PartFailure(part, f"its worker died {vain} times: see {pool.path / LOGS}", crashed=True)

    @contextmanager
    def _ordered(self, pool: Pool, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[_Array]:
        folder = pool.temporary(".slurm")
        folder.mkdir(mode=0o700)
        (pool.path / LOGS).mkdir(parents=True, exist_ok=True)
        settings = self.settings.model_copy(update={"name": "local"})
        (folder / ORDER).write_bytes(pickle.dumps(Order(phase, tasks, settings)))
        (folder / "array.sbatch").write_text(self._script(folder))
        try:
            with _submitted(self._command(pool, phase, folder, len(tasks))) as job:
                yield _Array(job, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _script(self, folder: Path) -> str:
        work = f"srun {shlex.join([sys.executable, '-m', 'curate', 'work', '--order', str(folder)])}"
        return "\n".join(["#!/bin/bash", self.settings.prologue, work, ""])

    def _command(self, pool: Pool, phase: Phase, folder: Path, parts: int) -> list[str]:
        tasks = min(self.settings.machines, parts)
        ours = ["--nodes=1", "--ntasks=1", f"--job-name=curate-{phase.name}", f"--output={pool.path / LOGS}/%A_%a.log"]
        if self.settings.workers:
            ours.append(f"--cpus-per-task={self.settings.workers * self.settings.threads_per_worker}")
        said = ["--wait", "--parsable", f"--array=0-{tasks - 1}", *ours, *self.settings.options]
        return ["sbatch", *said, str(folder / "array.sbatch")]


@dataclass
class _Array:
    """A submitted job array: the `sbatch` that waits for it, and the folder of its order."""

    job: subprocess.Popen[str]
    folder: Path

    @property
    def is_over(self) -> bool:
        return self.job.poll() is not None

    def raise_stop(self) -> None:
        """Raises what a worker raised, if one did."""
        if (self.folder / STOP).exists():
            stop: CurateError = pickle.loads((self.folder / STOP).read_bytes())
            raise stop

    def failures(self) -> Iterator[PartFailure]:
        """Parts that a worker gave up, as far as nobody has asked yet."""
        for path in sorted(self.folder.glob(f"*{FAILED}")):
            failure: PartFailure = pickle.loads(path.read_bytes())
            path.unlink()
            yield failure


@dataclass
class _Desk:
    """Where the driver looks for reports: those that answer a task that still waits are handed on, once."""

    pool: Pool
    table: str
    waiting: dict[int, PartTask]
    seen: set[str] = field(default_factory=set)

    def new(self) -> Iterator[PartReport]:
        """Reports that came in since the last call."""
        for name in reports.names(self.pool, self.table):
            if name in self.seen:
                continue
            self.seen.add(name)
            left = reports.read(self.pool, self.table, name)
            task = self.waiting.get(left.report.part) if left else None
            if left and task and reports.answers(left, task):
                del self.waiting[task.part]
                yield left.report


def _heard(job: _Array, desk: _Desk) -> Iterator[PartReport | PartFailure]:
    """All that comes in until the array has ended or nothing is waited for any more."""
    ended: float | None = None
    while desk.waiting and (ended is None or time.monotonic() - ended < _SETTLE_SECONDS):
        ended = ended or (time.monotonic() if job.is_over else None)
        begun = time.monotonic()
        yield from desk.new()
        job.raise_stop()
        for failure in job.failures():
            if desk.waiting.pop(failure.part, None):
                yield failure
        least, most = _POLL_SECONDS
        time.sleep(min(most, max(least, 10 * (time.monotonic() - begun))))  # looking costs at most a tenth of the time


@contextmanager
def _submitted(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Submits, and cancels what is still there when the block ends. Raises UsageError, LocalFault."""
    try:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    except FileNotFoundError:
        raise UsageError("sbatch is not on PATH: start this where jobs can be submitted, or choose another engine") from None
    assert job.stdout is not None and job.stderr is not None
    number = job.stdout.readline().split(";")[0].strip()
    if not number:
        said = " ".join(job.stderr.read().split())[:300] or f"exit code {job.wait()}"
        raise LocalFault(f"sbatch refused the job: {said}")
    try:
        yield job
    finally:
        if job.poll() is None:
            subprocess.run(["scancel", number], check=False, capture_output=True)
            job.terminate()
        job.communicate()


def share_of(parts: Sequence[int], which: int, of: int) -> list[int]:
    """The neighbours that the task `which` of `of` has to do, as equal as can be."""
    return list(parts[len(parts) * which // of : len(parts) * (which + 1) // of])


def place_in_job() -> tuple[int, int]:
    """Which of how many this process is, as Slurm says: an array's task, or a task of `srun`; else the only one."""
    for which, of in (("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if which in os.environ and int(os.environ.get(of, "1")) > 1:
            first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0")) if which == "SLURM_ARRAY_TASK_ID" else 0
            return int(os.environ[which]) - first, int(os.environ[of])
    return 0, 1
