"""What a threshold count on a pool in an object store reads: bytes at the server, against those of the columns it uses.

    python -m tests.bench.objects [ROWS] [ROWS_PER_FILE]

Tables of synthetic rows, a file a part, lie on an S3-speaking server, and `curate compact` has gone over them; `curate sql`
runs in a process of its own. The bound is 1.2 times the compressed bytes of the columns that the query reads, keys of joins
included, as they stand in the files that are read. ROWS_PER_FILE of a million or more leaves nothing to compact.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate import bucket
from curate import open as open_pool
from curate import schema as schemas
from curate.compact import sources
from curate.lease import claim
from curate.objects import ObjectPath
from curate.parquet import open_file
from curate.store import Pool
from tests.s3.server import BUCKET, Proxy, environment, store

QUERIES = {
    "scores": ("SELECT count(*) AS n FROM scores_base WHERE clip_own > 0.3", {"scores_base": ["clip_own"]}),
    "samples": (
        "SELECT count(*) AS n FROM samples WHERE clip_score > 0.3",
        {"rows": ["part", "row"], "scores_base": ["part", "row", "clip_own"], "fetched": ["part", "row"]},
    ),
}


def main(rows: int = 10_000_000, rows_per_file: int = 10_000) -> None:
    """Makes the pool, asks, prints one JSON line for each query."""
    with store() as proxy, tempfile.TemporaryDirectory() as scratch:
        os.environ.update(environment(proxy), CURATE_SCRATCH=scratch)
        pool = Pool.create(f"s3://{BUCKET}/pool")
        _fill(pool, rows, rows_per_file)
        begun = time.monotonic()
        print(open_pool(pool.path).compact(workers=2), f"{time.monotonic() - begun:.0f} s", flush=True)
        for name, (sql, columns) in QUERIES.items():
            used = sum(_column_bytes(pool, table, wanted) for table, wanted in columns.items())
            rounds = [_asked(proxy, pool, sql) for _ in range(3)]
            read = max(round_["bytes"] for round_ in rounds)
            print(json.dumps({"name": f"objects_{name}", "ratio": round(read / used, 3), "ours": read, "peer": used, "unit": "bytes",
                              "rounds": len(rounds), "requests": rounds[0]["requests"], "seconds": [round_["seconds"] for round_ in rounds],
                              "n": rounds[0]["n"]}))  # fmt: skip


def _asked(proxy: Proxy, pool: Pool, sql: str) -> dict[str, float]:
    proxy.traffic()
    begun = time.monotonic()
    command = [sys.executable, "-m", "curate", "sql", str(pool.path), sql, "--format", "json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds, passed = round(time.monotonic() - begun, 2), proxy.traffic()
    return {"bytes": passed.bytes_sent, "requests": sum(passed.requests.values()), "seconds": seconds, "n": answer[0]["n"]}


def _column_bytes(pool: Pool, table: str, wanted: Sequence[str]) -> int:
    """Compressed bytes of the columns, from the footers."""
    total = 0
    for source in sources(pool, pool.snapshot(table)):
        footer = open_file(source.path).metadata
        groups = [footer.row_group(at) for at in range(footer.num_row_groups)]
        chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
        total += sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in wanted)
    return total


def _fill(pool: Pool, rows: int, rows_per_file: int) -> None:
    """Tables rows, fetched and scores_base; what no query reads is null but for a text of the usual length."""
    draw = np.random.default_rng(1)
    base = schemas.table("scores")
    scores = pa.schema([base.field("part"), base.field("row"), base.field("reason"), ("clip_own", pa.float32()), base.field("basis")])
    shapes = {"rows": schemas.table("rows"), "fetched": schemas.table("fetched"), "scores_base": scores}
    with claim(pool, shapes) as run:
        for name, shape in shapes.items():
            files = []
            for part, begin in enumerate(range(0, rows, rows_per_file)):
                count = min(rows_per_file, rows - begin)
                columns = {field.name: pa.nulls(count, field.type) for field in shape if field.name not in ("part", "basis")}
                columns["row"] = pa.array(np.arange(count), pa.int32())
                if name == "rows":
                    columns["url"] = pa.array(
                        [f"https://host{number % 997}.example/{number}.jpg" for number in range(begin, begin + count)]
                    )
                if name == "scores_base":
                    columns["clip_own"] = pa.array(draw.normal(0.28, 0.05, count), pa.float32())
                files.append(pool.write_part(name, part, pa.table(columns), "synthetic", shape))
            run.commit(name, files)
    pool.write_document("current", {"clip_score": "clip_own"})
    assert isinstance(pool.path, ObjectPath)
    bucket._client.cache_clear()


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))
