"""Both backends of the fetch on one list, row by row: `python -m tests.bench.backends [ROWS]`.

A list on a local web (see `tests.e2e.lean_server`) is fetched twice, by curate and by img2dataset, each into a pool of its
own, by `curate run`. The last line is a JSON object: how each pair of reasons occurs, how the stored sizes agree, and the
seconds of each fetch (start of the workers and, for img2dataset, its imports included).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import curate
from curate import steps
from curate.recipe import Recipe, run_recipe
from tests.e2e.lean_server import serving, url

BACKENDS = ("curate", "img2dataset")
SETTINGS = ('fetch.allow_addresses=["127.0.0.0/8"]', "fetch.attempts=1", "fetch.total_seconds=10", "engine.workers=2")
SELECT = "SELECT sample_id, coalesce(reason, 'ok') AS reason, sha256, width, height FROM samples ORDER BY sample_id"


def compare(folder: Path, rows: int) -> dict[str, Any]:
    """Fetches twice and joins by sample_id."""
    with serving() as port:
        listed = folder / "list.parquet"
        pq.write_table(pa.table({"url": [url(n, port) for n in range(rows)], "caption": [f"row {n}" for n in range(rows)]}), listed)
        seconds = {backend: fetch(folder, listed, rows, backend) for backend in BACKENDS}
    ours, theirs = (curate.open(str(folder / backend)).sql(SELECT).rows() for backend in BACKENDS)
    pairs = list(zip(ours, theirs, strict=True))
    assert all(our["sample_id"] == their["sample_id"] for our, their in pairs)
    both = [(our, their) for our, their in pairs if our["reason"] == their["reason"] == "ok"]
    same = {name: sum(our[name] == their[name] for our, their in both) for name in ("sha256", "width", "height")}
    reasons = Counter(f"{our['reason']} / {their['reason']}" for our, their in pairs)
    return {"rows": rows, "seconds": seconds, "reasons": dict(reasons.most_common()), "both_ok": len(both), "same": same}


def fetch(folder: Path, listed: Path, rows: int, backend: str) -> float:
    """Seconds of the fetch step."""
    said = [f"input.path={listed}", f"plan.rows_per_part={rows // 4}", f"fetch.backend={backend}", *SETTINGS]
    job = run_recipe(Recipe("ingest", (steps.plan, steps.fetch)), folder / backend, said)
    return round(job.seconds["fetch"], 2)


def main() -> None:
    """Prints the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)))


if __name__ == "__main__":
    main()
