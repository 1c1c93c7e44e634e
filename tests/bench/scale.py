"""How time and memory of metadata grow: `python -m tests.bench.scale [ROWS …] [--engine spark] [--only metadata] [--rounds 1]`.

Three things, each in a fresh process: a list of ROWS rows is planned, given made-up fetch results and scores, searched for
equal bytes by the workers of the engine, and filtered by a fraction; a table of ROWS parts (no files behind them) is
committed in waves and opened again; ROWS pairs with a long chain and a giant star are turned into components, by workers
as well. Memory is told apart: the driver, the largest of its Python workers, a JVM. By default 10000 30000 100000 rows and
three rounds. The last line is JSON: growth of seconds a row from the smallest size to the largest, where 1 is linear.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema
from curate.dedupe.components import EDGES, both_ways, components
from curate.dedupe.pictures import dedupe, output_tables
from curate.dedupe.settings import DedupeSettings
from curate.engines.base import EngineSettings
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import Run, claim
from curate.plan import InputSettings, PlanSettings, plan
from curate.run import Waves, crew
from curate.shuffle import Shuffle
from curate.stage import PartFile, PartReport
from curate.store import Pool
from tests.dedupe.graphs import graph

ROWS_PER_PART = 10_000
WORKERS = 2
ADDRESSES = {"local": "", "ray": "local", "spark": f"local[{WORKERS}]"}


def settings(engine: str, bucket_rows: int) -> EngineSettings:
    """Two workers of an engine."""
    return EngineSettings(name=engine, workers=WORKERS, address=ADDRESSES[engine], bucket_rows=bucket_rows)


def metadata(pool: Pool, rows: int, engine: str) -> dict[str, float]:
    """Seconds of planning, of finding equal bytes and of filtering; what is made up in between is not counted."""
    path = pool.path.parent / "list.parquet"
    subprocess.run([sys.executable, "-m", "tests.bench.scale", "list", str(rows), "--into", str(path)], check=True)
    took, wanted = {}, DedupeSettings(perceptual=False)
    with claim(pool, output_tables(wanted)) as run:
        with timed(took, "plan"):
            plan(pool, run, InputSettings(path=str(path)), PlanSettings(rows_per_part=ROWS_PER_PART))
        _made_up(pool, run)
        with timed(took, "dedupe"):
            dedupe(pool, run, wanted, crew(settings(engine, 1 << 19)))
        with timed(took, "filter"):
            filter_pool(pool, run, FilterSettings(policy="clip_top30"))
    return took


@contextmanager
def timed(took: dict[str, float], name: str) -> Iterator[None]:
    """Seconds of the block."""
    begun = time.monotonic()
    yield
    took[name] = time.monotonic() - begun


def listed(path: Path, rows: int) -> None:
    """Writes a list of addresses, in a process of its own, so that its memory is not counted."""
    with pq.ParquetWriter(path, pa.schema([("url", pa.string()), ("caption", pa.string())])) as file:
        for low in range(0, rows, 100_000):
            numbers = range(low, min(low + 100_000, rows))
            urls = [f"https://host{number % 997}.example/{number}.jpg" for number in numbers]
            file.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in numbers]}))


def _made_up(pool: Pool, run: Run) -> None:
    """Every row has an image, one in fifty of them that of the row before, and a score."""
    random = np.random.default_rng(0)
    scores = pa.schema([*schema.table("scores_base"), pa.field("clip_made_up", pa.float32())])
    for table, columns in (("fetched", schema.table("fetched")), ("scores_base", scores)):
        run.add(table, columns)
        files = []
        for file in pool.snapshot("rows").files:
            data: dict[str, object] = {"row": pa.array(range(file.rows), pa.int32())}
            if table == "fetched":
                data |= {"tar_file": ["tars/none.tar"] * file.rows, "sha256": _hashes(file.part, file.rows)}
            else:
                data["clip_made_up"] = random.random(file.rows, np.float32)
            files.append(pool.write_part(table, file.part, pa.table(data), "made up", columns))
        run.commit(table, files)


def _hashes(part: int, rows: int) -> list[str]:
    return [hashlib.sha256(b"%d %d" % (part, row - row % 50 // 49)).hexdigest() for row in range(rows)]


def parts(pool: Pool, count: int, engine: str) -> dict[str, float]:
    """Seconds of committing a table of `count` parts in waves, and of opening it again once the driver is gone."""
    took: dict[str, float] = {}
    with timed(took, "commit"):
        _commit(pool, count)
    peak = float(_now("VmHWM"))
    with timed(took, "open"):
        assert len(pool.snapshot("rows").files) == count
    return {**took, "committing MiB": peak}


def _commit(pool: Pool, count: int) -> None:
    with claim(pool, {"rows": schema.table("rows")}) as run:
        waves = Waves(run, "rows", EngineSettings())
        for part in range(count):
            waves.add(PartReport(part, (_part(part),)))
        waves.flush()


def _part(part: int) -> PartFile:
    digest = hashlib.sha256(str(part).encode()).hexdigest()
    return PartFile("rows", part, f"{part:05d}-{digest}.parquet", 1 << 20, ROWS_PER_PART, digest[:32])


def pairs(pool: Pool, count: int, engine: str) -> dict[str, float]:
    """Seconds of finding the components of `count` pairs; the driver's memory without that of the pairs, which are made here."""
    one, other = graph(count, count // 10, count * 2 // 5)
    work = Shuffle(pool, "bench", "bench", 2 * count, crew(settings(engine, 1 << 19)))
    work.put("edges", EDGES, pa.table(both_ways(one, other)))
    del one, other
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    took = {"components": 0.0}
    before = _now("VmRSS")
    with timed(took, "components"):
        components(work, "edges")
    return {**took, "driver's growth MiB": float(_now("VmHWM") - before)}


def _now(name: str) -> int:
    """MiB that this process holds, or has held at most."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


@contextmanager
def watched(peaks: dict[str, float]) -> Iterator[None]:
    """The most memory of this process, of any Python process below it, and of any other one (a JVM, a raylet)."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    kind = "worker MiB" if process.name().startswith(("python", "ray::")) else f"{process.name()} MiB"
                    peaks[kind] = max(peaks.get(kind, 0.0), process.memory_info().rss >> 20)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()
    peaks["driver MiB"] = _now("VmHWM")


MEASURED = {"metadata": metadata, "parts": parts, "pairs": pairs}


def measured(what: str, size: int, engine: str) -> dict[str, float]:
    """Seconds and peak memory of one measurement, in a process of its own."""
    words = [sys.executable, "-m", "tests.bench.scale", what, str(size), "--engine", engine]
    told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def one(what: str, size: int, engine: str) -> None:
    """The measurement itself."""
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, watched(peaks):
        found = MEASURED[what](Pool.create(Path(folder) / "pool"), size, engine)
    print(json.dumps({**found, **peaks}))


def main(sizes: list[int], engine: str, only: list[str], rounds: int) -> None:
    """All of them, round by round, and how they grow."""
    growth = {}
    for what in only:
        found = {size: [measured(what, size, engine) for _ in range(rounds)] for size in sizes}
        for name in sorted(set[str]().union(*(one for of in found.values() for one in of))):
            median = {size: statistics.median(one.get(name, 0.0) for one in of) for size, of in found.items()}
            unit = "" if name.endswith("MiB") else "s"
            print(f"{what:>9} {name:<20}", "   ".join(f"{size:>10,}: {value:8.2f} {unit}" for size, value in median.items()), flush=True)
            if unit:
                growth[name] = round(median[sizes[-1]] / sizes[-1] / (median[sizes[0]] / sizes[0]), 3)
    told = {"ratio": max(growth.values()), "ours": growth, "peer": "linear", "unit": "s per row, largest / smallest", "rounds": rounds}
    print(json.dumps({"name": f"scale_{engine}", **told}))


def words() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("tests.bench.scale")
    parser.add_argument("rows", nargs="*", default=["10000", "30000", "100000"])
    parser.add_argument("--engine", choices=list(ADDRESSES), default="local")
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    said = words()
    if said.rows[0] == "list":
        listed(said.into, int(said.rows[1]))
    elif said.rows[0] in MEASURED:
        one(said.rows[0], int(said.rows[1]), said.engine)
    else:
        main([int(size) for size in said.rows], said.engine, said.only, said.rounds)
