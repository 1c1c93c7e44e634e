"""The driver's beginning, alone in its process: `python -m tests.e2e.startup POOL LIST` plans, then fetches until one part is in.

Prints, as JSON, the most memory that the process ever held, and after which step. The list's addresses are this machine's,
which the guard refuses: no request is made.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from curate.engines.base import EngineSettings
from curate.engines.local import LocalEngine
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, plan
from curate.run import stale_parts
from curate.store import Pool
from tests.e2e.fetch_worker import peak_bytes


def main() -> None:
    """Plan, work orders, first part."""
    pool = Pool.create(Path(sys.argv[1]))
    peaks, begun = {"imports": peak_bytes()}, time.monotonic()
    with claim(pool, {}) as run:
        report = plan(pool, run, InputSettings(path=sys.argv[2]), PlanSettings())
        peaks["plan"] = peak_bytes()
        phase = FetchPhase()
        run.add(phase.table, phase.schema)
        tasks, _ = stale_parts(pool, phase)
        outcomes = LocalEngine(EngineSettings(workers=1)).each(phase, tasks)
        next(outcomes)
        peaks["fetch"] = peak_bytes()
        outcomes.close()  # type: ignore[attr-defined]
    print(json.dumps({"rows": report.rows, "parts": report.parts, "seconds": time.monotonic() - begun, "peaks": peaks}))


if __name__ == "__main__":
    main()
