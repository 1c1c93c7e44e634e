"""One fetch worker that works for long: `python -m tests.e2e.soak_worker POOL SHARE OF [key=value …]`.

Does every part whose number modulo OF is SHARE, as a worker of the local engine would, and commits nothing. Prints a line
of JSON after its first fifth and at its end: rows done by reason, and what it holds while it rests.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.run import stale_parts
from curate.settings import build, values
from curate.store import Pool

REST_SECONDS = 3.0  # until idle connections are closed


def tell(reasons: Counter[str]) -> None:
    """Says what is held now that nothing is under way."""
    time.sleep(REST_SECONDS)
    me = psutil.Process()
    held = {"descriptors": len(os.listdir("/proc/self/fd")), "threads": me.num_threads(), "children": len(me.children(recursive=True))}
    print(json.dumps({"rows": reasons.total(), "reasons": reasons, "python_threads": threading.active_count(), **held}), flush=True)


def main() -> None:
    """The worker."""
    pool, share, of = Pool.open(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    phase = FetchPhase(build(FetchSettings, values(sys.argv[4:])))
    tasks = [task for task in stale_parts(pool, phase)[0] if task.part % of == share]
    reasons = Counter[str]()
    with phase.open() as fetch_part:
        for number, task in enumerate(tasks, 1):
            reasons.update(fetch_part(task).reasons)
            if number == max(1, len(tasks) // 5):
                tell(reasons)
        tell(reasons)


if __name__ == "__main__":
    main()
