"""Planning needs the memory of its spool, not of its list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plan import lists

MEASURE = """
import sys
from pathlib import Path
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, plan
from curate.store import Pool
pool = Pool.create(Path(sys.argv[1]))
with claim(pool, {}) as run:
    plan(pool, run, InputSettings(path=sys.argv[2]), PlanSettings(rows_per_part=1000, spool_bytes=4 << 20))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_kib(folder: Path, rows: int) -> int:
    """Peak resident memory of a fresh process that plans so many rows of more than a kibibyte."""
    found = [{**row, "caption": f"{row['caption']} " * 100} for row in lists.rows(rows)]
    path = lists.write(folder / f"{rows}.csv", lists.encoded(found, "csv"))
    command = [sys.executable, "-c", MEASURE, str(folder / f"pool{rows}"), path]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    small, large = peak_kib(tmp_path, 15_000), peak_kib(tmp_path, 60_000)
    assert large - small < 40 << 10, f"{small >> 10} MiB for 15,000 rows, {large >> 10} MiB for 60,000"
