"""A small run in one process, started from one that has everything loaded: `python -m tests.e2e.small_run MODULES`.

Reads lines `POOL` and forks for each: the child opens a scratch table, so that the threads of Delta Lake are there, makes the
file POOL.ready, waits for POOL.go, runs, and ends. Prints the child's id, then how it ended (a negative signal or an exit code).
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate import run as runner
from curate import schema as schemas
from curate import steps
from curate.engines.base import EngineSettings, PartFailure
from curate.errors import CurateError
from curate.fetch.codec import outcome
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish
from curate.lease import claim
from curate.media.tar import TarWriter
from curate.recipe import Job, Recipe, run_recipe
from curate.run import run_phase
from curate.stage import PartReport, PartTask, Phase, Resources, fingerprint
from curate.store import Pool

ROWS, ROWS_PER_PART = 6, 3


def picture(number: int) -> bytes:
    """A small JPEG of its own."""
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((96, 64)).save(stream, "JPEG")
    return stream.getvalue()


@dataclass(frozen=True)
class Stored:
    """Fetches without a network: what lies at a URL follows from its number; every fifth is missing."""

    name = "fetch"
    table = "fetched"
    inputs = ("rows",)
    resources = Resources()
    schema = schemas.table("fetched")

    def identity(self) -> str:
        """Always the same."""
        return fingerprint("stored")

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        """Nothing to build."""
        yield self._store

    def _store(self, task: PartTask) -> PartReport:
        pool, rows = Pool.open(task.pool), pq.read_table(task.inputs["rows"], partitioning=None).to_pylist()
        temporary, lines = pool.temporary(".tar"), []
        with TarWriter(temporary) as tar:
            for row in rows:
                number = int(row["url"].rpartition("/")[2])
                columns, image = outcome(picture(number), Wish(), FetchSettings()) if number % 5 else ({"reason": "http_not_found"}, None)
                place = {} if image is None else {"tar_offset": tar.add(f"{row['sample_id']}.jpg", image), "tar_size": len(image)}
                lines.append({"row": row["row"], **columns, **place})
        tar_file = pool.publish(temporary, "tars", f"{task.part:05d}")
        lines = [{**line, "tar_file": tar_file} if "tar_size" in line else line for line in lines]
        table = pa.Table.from_pylist(
            lines, pa.schema([self.schema.field(name) for name in self.schema.names if name not in ("part", "basis")])
        )
        return PartReport(task.part, (pool.write_part(self.table, task.part, table, task.basis),), {"ok": len(lines)})


class Inline:
    """An engine that does every part itself, so that one process is the whole run."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`."""
        with phase.open() as do:
            yield from (do(task) for task in tasks)


def fetch(job: Job) -> None:
    """The recipe's step, without a network."""
    run_phase(job.pool, job.run, Stored(), job.settings.engine)


RECIPE = Recipe("ingest", (steps.plan, fetch, steps.score, steps.dedupe, steps.filter, steps.pack))


def small_run(pool: Path) -> int:
    """The whole recipe on six rows; its exit code."""
    listed = pool.parent / "list.txt"
    said = [f"input.path={listed}", f"plan.rows_per_part={ROWS_PER_PART}", "filter.where=original_width > 0", "pack.shard_samples=3"]
    try:
        run_recipe(RECIPE, pool, [*said, "engine.wave_parts=1", "score.decode_threads=1"])
    except CurateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _child(pool: Path) -> int:
    scratch = Pool.create(f"{pool}.scratch")
    with claim(scratch, {"rows": schemas.table("rows")}) as run:
        run.check()
    Path(f"{pool}.ready").touch()
    while not Path(f"{pool}.go").exists():
        time.sleep(0.002)
    code = small_run(pool)
    Path(f"{pool}.modules").write_text("\n".join(sorted(sys.modules)))
    return code


def main() -> None:
    """The process that has everything loaded."""
    runner.make_engine = Inline
    for name in Path(sys.argv[1]).read_text().splitlines():
        with suppress(Exception):
            importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                os._exit(_child(Path(line.strip())))
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
