"""How much memory a run's driver needs until its first part is fetched: as much for ten million rows as for ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CHUNK_ROWS = 200_000
SPOOL_BYTES = 160 << 20  # what a full spool of 32 MiB costs at its worst: rows, their order, the sorted copy, the allocator's slack


def write_list(path: Path, rows: int) -> Path:
    """Rows on many addresses of this machine, in bounded memory."""
    schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, CHUNK_ROWS):
            numbers = range(first, min(rows, first + CHUNK_ROWS))
            urls = [f"http://127.{1 + n % 250}.{n // 250 % 250}.{n // 62_500 % 250}/picture-{n}.jpg" for n in numbers]
            captions = [f"a caption of some words for row {n}" for n in numbers]
            writer.write_batch(pa.record_batch([pa.array(urls), pa.array(captions)], schema=schema))
    return path


def begin(folder: Path, rows: int) -> dict[str, Any]:
    """What the driver's process said."""
    folder.mkdir()
    listed = write_list(folder / "list.parquet", rows)
    command = [sys.executable, "-m", "tests.e2e.startup", str(folder / "pool"), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    listed.unlink()
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["rows"] == rows
    print(f"\nstart-up: {rows:,} rows, {said['parts']:,} parts: {said['peaks']['fetch'] >> 20} MiB in {said['seconds']:.0f} s")
    return said


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_memory_is_flat_from_ten_thousand_to_ten_million_rows(tmp_path: Path) -> None:
    peaks = {rows: begin(tmp_path / str(rows), rows)["peaks"]["fetch"] for rows in (10_000, 100_000, 1_000_000, 10_000_000)}
    assert max(peaks.values()) - peaks[10_000] <= SPOOL_BYTES
    assert peaks[10_000_000] <= 1.1 * peaks[1_000_000], "once the spool is full, the list's length must not matter"
