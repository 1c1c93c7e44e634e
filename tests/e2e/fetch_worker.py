"""One fetch worker alone in its process: `python -m tests.e2e.fetch_worker POOL [key=value …]` fetches what is planned there.

Prints, as JSON, the most memory that the process ever held and how many rows ended with which reason.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.run import stale_parts
from curate.settings import build, values
from curate.store import Pool


def peak_bytes() -> int:
    """The high-water mark of this process's resident memory (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Does every part as a worker of the local engine would, and commits nothing."""
    pool = Pool.open(Path(sys.argv[1]))
    phase = FetchPhase(build(FetchSettings, values(sys.argv[2:])))
    reasons = Counter[str]()
    with phase.open() as fetch_part:
        for task in stale_parts(pool, phase)[0]:
            reasons.update(fetch_part(task).reasons)
    print(json.dumps({"peak_bytes": peak_bytes(), "reasons": reasons}))


if __name__ == "__main__":
    main()
