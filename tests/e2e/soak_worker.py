"""One fetch worker that works for long: `python -m tests.e2e.soak_worker POOL SHARE OF [key=value …]`.

Does every part whose number modulo OF is SHARE, several at once as a worker of the local engine would, and commits
nothing. Prints a line of JSON after its first fifth and at its end: rows done by reason, and what it holds while it rests.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.run import stale_parts
from curate.settings import build, values
from curate.store import Pool

REST_SECONDS = 4.0  # until idle connections are closed


def open_now() -> Counter[str]:
    """What the descriptors of this process lead to, without numbers; the one with which they are listed is gone by then."""
    places = Counter[str]()
    for name in os.listdir("/proc/self/fd"):
        try:
            places[re.sub(r"\d{2,}", "N", os.readlink(f"/proc/self/fd/{name}"))] += 1
        except FileNotFoundError:
            continue
    return places


def resting() -> Counter[str]:
    """The fewest descriptors of some seconds in which nothing is under way."""
    until, found = time.monotonic() + REST_SECONDS, open_now()
    while time.monotonic() < until:
        time.sleep(0.2)
        found = min(found, open_now(), key=Counter.total)
    return found


def tell(reasons: Counter[str]) -> None:
    """Says what is held now that nothing is under way."""
    places, me = resting(), psutil.Process()
    held = {"descriptors": places.total(), "threads": me.num_threads(), "children": len(me.children(recursive=True))}
    print(json.dumps({"rows": reasons.total(), "reasons": reasons, "open": places, **held}), flush=True)


def main() -> None:
    """The worker."""
    pool, share, of = Pool.open(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    phase = FetchPhase(build(FetchSettings, values(sys.argv[4:])))
    tasks = [task for task in stale_parts(pool, phase)[0] if task.part % of == share]
    reasons, first = Counter[str](), max(1, len(tasks) // 5)
    with phase.open() as fetch_part, ThreadPoolExecutor(phase.resources.parts_at_once) as hands:
        for some in (tasks[:first], tasks[first:]):
            for report in hands.map(fetch_part, some):
                reasons.update(report.reasons)
            tell(reasons)


if __name__ == "__main__":
    main()
