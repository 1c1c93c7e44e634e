"""How time and memory of metadata grow: `python -m tests.bench.scale [ROWS …]` (default 10000 30000 100000 rows, three rounds).

Three things, each in a fresh process: a list of ROWS rows is planned, given made-up fetch results and scores, and filtered
by a fraction; a table of ROWS parts (no files behind them) is committed in waves and opened again; ROWS pairs with a long
chain and a giant star are turned into components. The last line is JSON: growth of seconds a row from the smallest size to
the largest, where 1 is linear.
"""

from __future__ import annotations

import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema
from curate.dedupe.components import EDGES, both_ways, components
from curate.engines.base import EngineSettings
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, plan
from curate.run import crew
from curate.shuffle import Shuffle
from curate.stage import PartFile
from curate.store import Pool
from tests.dedupe.graphs import graph

ROUNDS = 3
WAVE_PARTS = 256
ROWS_PER_PART = 10_000


def metadata(pool: Pool, rows: int) -> dict[str, float]:
    """Seconds of planning and of filtering `rows` rows; what lies between is made up and not counted."""
    path = pool.path.parent / "list.parquet"
    urls = pa.array([f"https://host{number % 997}.example/{number}.jpg" for number in range(rows)])
    pq.write_table(pa.table({"url": urls, "caption": pa.array([f"picture {number}" for number in range(rows)])}), path)
    begun = time.monotonic()
    with claim(pool, {}) as run:
        plan(pool, run, InputSettings(path=str(path)), PlanSettings(rows_per_part=ROWS_PER_PART))
        planned = time.monotonic() - begun
        _made_up(pool, run)
        begun = time.monotonic()
        filter_pool(pool, run, FilterSettings(policy="clip_top30"))
    return {"plan": planned, "filter": time.monotonic() - begun}


def _made_up(pool: Pool, run: object) -> None:
    random = np.random.default_rng(0)
    scores = pa.schema([*schema.table("scores_base"), pa.field("clip_made_up", pa.float32())])
    for table, columns in (("fetched", schema.table("fetched")), ("scores_base", scores)):
        run.add(table, columns)  # type: ignore[attr-defined]
        files = []
        for file in pool.snapshot("rows").files:
            data: dict[str, object] = {"row": pa.array(range(file.rows), pa.int32())}
            data |= (
                {"tar_file": ["tars/none.tar"] * file.rows}
                if table == "fetched"
                else {"clip_made_up": random.random(file.rows, np.float32)}
            )
            files.append(pool.write_part(table, file.part, pa.table(data), "made up", columns))
        run.commit(table, files)  # type: ignore[attr-defined]


def parts(pool: Pool, count: int) -> dict[str, float]:
    """Seconds of committing a table of `count` parts in waves, and of opening it again."""
    begun = time.monotonic()
    with claim(pool, {"rows": schema.table("rows")}) as run:
        for low in range(0, count, WAVE_PARTS):
            run.commit("rows", [_part(part) for part in range(low, min(low + WAVE_PARTS, count))])
    committed, begun = time.monotonic() - begun, time.monotonic()
    assert len(pool.snapshot("rows").files) == count
    return {"commit": committed, "open": time.monotonic() - begun}


def _part(part: int) -> PartFile:
    digest = hashlib.sha256(str(part).encode()).hexdigest()
    return PartFile("rows", part, f"{part:05d}-{digest}.parquet", 1 << 20, ROWS_PER_PART, digest[:32])


def pairs(pool: Pool, count: int) -> dict[str, float]:
    """Seconds of finding the components of `count` pairs with two workers."""
    one, other = graph(count, count // 10, count * 2 // 5)
    work = Shuffle(pool, "bench", "bench", 2 * count, crew(EngineSettings(workers=2, bucket_rows=max(count // 8, 1 << 14))))
    work.put("edges", EDGES, pa.table(both_ways(one, other)))
    begun = time.monotonic()
    components(work, "edges")
    return {"components": time.monotonic() - begun}


MEASURED = {"metadata": metadata, "parts": parts, "pairs": pairs}


def measured(what: str, size: int) -> dict[str, float]:
    """Seconds and peak memory of one measurement, in a process of its own."""
    told = subprocess.run([sys.executable, "-m", "tests.bench.scale", what, str(size)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def one(what: str, size: int) -> None:
    """The measurement itself."""
    with tempfile.TemporaryDirectory() as folder:
        found = MEASURED[what](Pool.create(Path(folder) / "pool"), size)
    print(json.dumps({**found, "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))


def main(sizes: list[int]) -> None:
    """All of them, round by round, and how they grow."""
    growth = {}
    for what in MEASURED:
        rounds = {size: [measured(what, size) for _ in range(ROUNDS)] for size in sizes}
        for name in rounds[sizes[0]][0]:
            median = {size: statistics.median(found[name] for found in rounds[size]) for size in sizes}
            unit = "MiB" if name == "peak MiB" else "s"
            print(f"{what:>9} {name:<11}", "   ".join(f"{size:>9,}: {value:8.2f} {unit}" for size, value in median.items()), flush=True)
            if unit == "s":
                growth[name] = round(median[sizes[-1]] / sizes[-1] / (median[sizes[0]] / sizes[0]), 3)
    worst = max(growth.values())
    print(
        json.dumps(
            {"name": "scale", "ratio": worst, "ours": growth, "peer": "linear", "unit": "s per row, largest / smallest", "rounds": ROUNDS}
        )
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in MEASURED:
        one(sys.argv[1], int(sys.argv[2]))
    else:
        main([int(size) for size in sys.argv[1:]] or [10_000, 30_000, 100_000])
