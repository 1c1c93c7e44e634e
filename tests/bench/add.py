"""What a further list costs: `python -m tests.bench.add [ROWS]` fetches ROWS URLs, then adds them again with one percent of new ones.

Prints one JSON object: seconds and requests of both, the share that the addition cost, and, for planning alone, how
much memory and time it takes to look PLANNED ids up in a pool of as many rows.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import curate
from curate.engines.base import EngineSettings
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, add, plan
from curate.run import run_phase
from curate.store import Pool
from tests.fetch.conftest import FaultServer, quick

PLANNED = 500_000


@contextmanager
def served() -> Iterator[FaultServer]:
    """The fault server in a thread of its own."""
    loop, faults = asyncio.new_event_loop(), FaultServer()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(faults.serve, "127.0.0.1", 0), loop).result()
    faults.port = listening.sockets[0].getsockname()[1]
    yield faults
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def write_list(path: Path, urls: list[str]) -> str:
    pq.write_table(pa.table({"url": urls, "caption": [f"about {url}" for url in urls]}), path)
    return str(path)


def fetching(rows: int, folder: Path) -> dict[str, Any]:
    """A pool, and the same list again with one percent of new rows."""
    with served() as server:
        urls = [server.url(f"/image/{number}") for number in range(rows + rows // 100)]
        pool, engine = Pool.create(folder / "pool"), EngineSettings(workers=2)
        settings = quick(attempts=1)
        pool.write_document("settings", {"settings": {"fetch": settings.model_dump(mode="json"), "engine": engine.model_dump(mode="json")}})
        begun = time.monotonic()
        with claim(pool, {}) as run:
            plan(pool, run, InputSettings(path=write_list(folder / "first.parquet", urls[:rows])), PlanSettings(rows_per_part=250))
            run_phase(pool, run, FetchPhase(settings), engine)
        first_seconds, first_requests = time.monotonic() - begun, len(server.log)
        begun = time.monotonic()
        report = curate.open(str(pool.path)).add(write_list(folder / "more.parquet", urls))
        add_seconds, add_requests = time.monotonic() - begun, len(server.log) - first_requests
    return {
        "rows": rows, "first_seconds": round(first_seconds, 1), "first_requests": first_requests, "add_seconds": round(add_seconds, 1),
        "add_requests": add_requests, "counted_requests": report.fetch.counters["requests"],
        "requests_share": add_requests / first_requests, "seconds_share": round(add_seconds / first_seconds, 3),
    }  # fmt: skip


def planning(folder: Path) -> dict[str, Any]:
    """No request: ids of a long list are looked up in a pool of as many rows."""
    paths = [
        write_list(folder / f"{name}.parquet", [f"https://h{at % 999}.example/{name}/{at}.jpg" for at in range(PLANNED)]) for name in "ab"
    ]
    pool = Pool.create(folder / "planned")
    with claim(pool, {}) as run:
        plan(pool, run, InputSettings(path=paths[0]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        add(pool, run, InputSettings(path=paths[1]))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"planned": PLANNED, "plan_seconds": round(time.monotonic() - begun, 1), "memory_rise_mib": grown // 1024}


def main() -> None:
    """Measures both."""
    with tempfile.TemporaryDirectory() as folder:
        planned = planning(Path(folder))
        print(json.dumps({**fetching(int(sys.argv[1]) if len(sys.argv) > 1 else 3000, Path(folder)), **planned}))


if __name__ == "__main__":
    main()
