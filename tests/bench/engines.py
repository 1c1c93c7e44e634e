"""What a cluster engine costs beside the local one on the same cores: `python -m tests.bench.engines ray [ROWS]`.

Fetches from a small web on this machine (see `tests.e2e.lean_server`), then scores what was fetched (captions, sizes,
hashes), with two workers. Warm rate: parts a second from the moment at which each worker has been heard of once, so that the
start of processes, imports and opening are apart; they are reported as seconds to the first outcome. The engines take
turns; a ratio is that of one round, the smaller of the two phases' medians is the result.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.engines.base import EngineSettings, PartFailure
from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, plan
from curate.run import make_engine, run_phase, stale_parts
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.stage import Phase
from curate.store import Pool
from tests.e2e.lean_server import serving, url

WORKERS, ROUNDS, ROWS_PER_PART = 2, 3, 100
ADDRESSES = {"ray": "local", "spark": f"local[{WORKERS}]"}


@dataclass(frozen=True)
class Timed:
    """One phase on one engine."""

    first_seconds: float  # until the first outcome
    rate: float  # parts a second, warm


def planned(folder: Path, rows: int, port: int) -> Pool:
    """A pool of so many addresses."""
    listed = folder / "list.parquet"
    pq.write_table(pa.table({"url": [url(n, port) for n in range(rows)], "caption": [f"row {n}" for n in range(rows)]}), listed)
    pool = Pool.create(folder / "pool")
    with claim(pool, {}) as run:
        plan(pool, run, InputSettings(path=str(listed)), PlanSettings(rows_per_part=ROWS_PER_PART))
    return pool


def timed(pool: Pool, phase: Phase, settings: EngineSettings) -> Timed:
    """Does every part of the phase, and commits nothing."""
    tasks, _ = stale_parts(pool, phase)
    lead = min(WORKERS * phase.resources.parts_at_once, len(tasks) // 3)
    begun, moments = time.monotonic(), []
    for outcome in make_engine(settings).each(phase, tasks):
        assert not isinstance(outcome, PartFailure), outcome.message
        moments.append(time.monotonic())
    assert len(moments) == len(tasks)
    return Timed(moments[0] - begun, (len(moments) - lead) / (moments[-1] - moments[lead - 1]))


def measure(engine: str, rows: int) -> dict[str, dict[str, list[Timed]]]:
    """Phase -> engine -> what each round took."""
    settings = {
        "local": EngineSettings(workers=WORKERS),
        engine: EngineSettings(name=engine, workers=WORKERS, address=ADDRESSES[engine]),
    }
    phases: dict[str, Phase] = {
        "fetch": FetchPhase(FetchSettings(allow_addresses=("127.0.0.0/8",), attempts=1, host_interval_seconds=0.01, host_in_flight=8)),
        "score": ScorePhase(ScoreSettings()),
    }
    found: dict[str, dict[str, list[Timed]]] = {name: {one: [] for one in settings} for name in phases}
    with tempfile.TemporaryDirectory() as home, serving() as port:
        pool = planned(Path(home), rows, port)
        for name, phase in phases.items():
            for number in range(ROUNDS):
                for one in list(settings)[:: 1 if number % 2 == 0 else -1]:
                    took = timed(pool, phase, settings[one])
                    found[name][one].append(took)
                    print(f"{name} round {number + 1} {one}: {took.rate:.2f} parts/s, first after {took.first_seconds:.1f} s", flush=True)
            with claim(pool, {}) as run:
                run_phase(pool, run, phase, settings["local"])
        shutil.rmtree(pool.path)
    return found


def summary(engine: str, found: dict[str, dict[str, list[Timed]]]) -> dict[str, object]:
    """Medians, and ratios round by round."""
    rates = {name: {one: statistics.median(timed.rate for timed in rounds) for one, rounds in by.items()} for name, by in found.items()}
    ratios = {name: _ratio(by[engine], by["local"]) for name, by in found.items()}
    worst = min(ratios, key=lambda name: ratios[name])
    first = {one: round(statistics.median(timed.first_seconds for timed in found["fetch"][one]), 1) for one in ("local", engine)}
    return {
        "name": f"engines_{engine}",
        "ratio": round(ratios[worst], 3),
        "ours": round(rates[worst][engine], 2),
        "peer": round(rates[worst]["local"], 2),
        "unit": f"parts/s of {worst}, warm",
        "rounds": ROUNDS,
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "seconds_to_first_part": first,
    }


def _ratio(ours: Sequence[Timed], peer: Sequence[Timed]) -> float:
    return statistics.median(our.rate / their.rate for our, their in zip(ours, peer, strict=True))


def main() -> None:
    """Prints a line a run, and one JSON object at the end."""
    engine = sys.argv[1] if len(sys.argv) > 1 else "ray"
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 4_000
    print(json.dumps(summary(engine, measure(engine, rows))))


if __name__ == "__main__":
    main()
