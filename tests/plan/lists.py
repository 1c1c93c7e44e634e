"""Input lists for the tests, in every format and packing, and planning in one call."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from curate.lease import claim
from curate.plan import InputSettings, PlanReport, PlanSettings, plan
from curate.store import Pool

Rows = Sequence[Mapping[str, Any]]


def rows(count: int) -> list[dict[str, Any]]:
    """Distinct, well-formed rows with columns of three types."""
    return [
        {"url": f"https://host{at % 7}.example.com/{at}.jpg", "caption": f"thing {at}", "width": 100 + at, "score": at / 64 + 0.5}
        for at in range(count)
    ]


def encoded(found: Rows, format: str) -> bytes:
    """The rows as a list file; txt keeps the URLs only."""
    if format == "txt":
        return "".join(f"{row['url']}\n" for row in found).encode()
    if format == "json":
        return json.dumps(list(found), indent=1).encode()
    if format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in found).encode()
    if format == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(found)), sink, row_group_size=4)
        return sink.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(found[0]), delimiter="\t" if format == "tsv" else ",")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue().encode()


def packed(data: bytes, suffix: str) -> bytes:
    """The bytes in the packing that a file suffix means."""
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if suffix == ".zst" else data


def write(path: Path, content: str | bytes) -> str:
    """Writes a list and returns its path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def planned(folder: Path, path: str | tuple[str, ...], rows_per_part: int = 10_000, **settings: Any) -> tuple[Pool, PlanReport]:
    """A pool at `folder`, planned from a list."""
    pool = Pool.create(folder)
    with claim(pool, {}) as run:
        report = plan(pool, run, InputSettings(path=path, **settings), PlanSettings(rows_per_part=rows_per_part))
    return pool, report


def in_list_order(pool: Pool) -> list[dict[str, Any]]:
    """The pool's rows sorted by input file and row."""
    return sorted(pool.snapshot("rows").read().to_pylist(), key=lambda row: (row["source_file"], row["source_row"]))
