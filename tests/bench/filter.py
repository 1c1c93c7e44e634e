"""The filter on tables of any size beside DuckDB alone: `python -m tests.bench.filter [ROWS] [--rounds 3] [--folder FOLDER]`.

A pool of two compacted tables is made up: `rows` with the sizes that a list tells, `scores_base` with a CLIP score; no picture,
no model. In turn, each in a fresh process: `curate filter --preview`, `curate filter` (decisions written, digested, committed),
and DuckDB's COPY of the same columns by the same CASE, in the same order and compression, from one file in which the two tables
are joined already. Only the copies of the tables are there, the parts' own files are empty. A FOLDER is kept, and made up once.
The last line is JSON: how many times as fast as DuckDB the decisions are written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator

from curate import schema
from curate.compact import FILE_ROWS, FOLDER
from curate.lease import claim
from curate.stage import PartFile, fingerprint
from curate.store import ROW_GROUP_ROWS, Pool

ROWS, ROWS_PER_PART = 100_000_000, 10_000
RULES = {
    "image_small": "coalesce(least(original_width, original_height), 0) < 200",
    "image_aspect": "coalesce(greatest(original_width, original_height) > 3.0 * least(original_width, original_height), true)",
    "clip_score_low": "coalesce(clip_score, -1) < 0.28",
}
PEER_MEMORY = "1GiB"
SIZES = [pa.field(f"source.original_{side}", pa.int32()) for side in ("width", "height")]
COLUMNS = {
    "rows": pa.schema([*schema.table("rows"), *SIZES]),
    "scores_base": pa.schema([*schema.table("scores_base"), pa.field("clip_made_up", pa.float32())]),
}
JOINED = pa.schema(
    [("part", pa.int32()), ("row", pa.int32()), ("sample_id", pa.string()), ("original_width", pa.int32()), ("original_height", pa.int32()),
     ("clip_score", pa.float32())]
)  # fmt: skip


# -- what is filtered


def make(folder: Path, rows: int) -> None:
    """The pool, both tables joined in one file, and the policy."""
    (folder / "bench.sql").write_text(f"SELECT part, row{''.join(f', {sql} AS {name}' for name, sql in RULES.items())} FROM samples\n")
    pool, parts, of_copy = Pool.create(folder / "pool"), rows // ROWS_PER_PART, -(-FILE_ROWS // ROWS_PER_PART)
    with claim(pool, COLUMNS) as run, pq.ParquetWriter(folder / "joined.parquet", JOINED, compression="zstd") as joined:
        files = {table: [_empty(pool, table, part) for part in range(parts)] for table in COLUMNS}
        for low in range(0, parts, of_copy):
            _copy(pool, {table: files[table][low : low + of_copy] for table in COLUMNS}, joined)
        for table in COLUMNS:
            run.commit(table, files[table])


def _empty(pool: Pool, table: str, part: int) -> PartFile:
    """A part's own file, which the copy stands in for."""
    name = f"{part:05d}-{hashlib.sha256(f'{table} {part}'.encode()).hexdigest()}.parquet"
    (pool.table_folder(table) / name).touch()
    return PartFile(table, part, name, 0, ROWS_PER_PART, "made up")


def _copy(pool: Pool, files: dict[str, list[PartFile]], joined: pq.ParquetWriter) -> None:
    """One copy of each table, laid out as `curate compact` lays it out, and the same rows joined."""
    temporary = {table: pool.temporary(".parquet") for table in files}
    writers = {table: pq.ParquetWriter(path, COLUMNS[table], compression="zstd", store_schema=False) for table, path in temporary.items()}
    parts = [file.part for file in files["rows"]]
    of_group = -(-ROW_GROUP_ROWS // ROWS_PER_PART)
    for low in range(0, len(parts), of_group):
        data = _values(parts[low : low + of_group])
        joined.write_table(data.select(JOINED.names), row_group_size=2 * ROW_GROUP_ROWS)
        for table, writer in writers.items():
            writer.write_table(_of_table(data, COLUMNS[table]), row_group_size=2 * ROW_GROUP_ROWS)
    for table, writer in writers.items():
        writer.close()
        basis = fingerprint("\n".join(file.path for file in files[table]))
        pool.publish(temporary[table], f"{FOLDER}/{table}", f"{parts[0]:05d}-{parts[-1]:05d}-{basis}")


def _values(parts: Sequence[int]) -> pa.Table:
    """What is known of the rows of these parts."""
    random, rows = np.random.default_rng(parts[0]), len(parts) * ROWS_PER_PART
    part, row = np.repeat(np.array(parts, np.int32), ROWS_PER_PART), np.tile(np.arange(ROWS_PER_PART, dtype=np.int32), len(parts))
    sizes = [random.gamma(3, 200, rows).astype(np.int32) for _ in SIZES]
    return pa.table([part, row, _ids(random, rows), *sizes, random.normal(0.27, 0.04, rows).astype(np.float32)], schema=JOINED)


def _ids(random: Generator, rows: int) -> pa.Array:
    """128 random bits for each row, as 32 hex digits."""
    offsets = np.arange(0, 32 * rows + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(random.bytes(16 * rows).hex().encode()))


def _of_table(data: pa.Table, columns: pa.Schema) -> pa.Table:
    """The table's share of the values; what it has no value for is null."""
    data = data.append_column("basis", pa.repeat("made up", data.num_rows))
    told = {"clip_made_up": "clip_score", **{field.name: field.name.removeprefix("source.") for field in SIZES}}
    found = {field.name: told.get(field.name, field.name) for field in columns}
    present = {name: data[of] for name, of in found.items() if of in data.column_names}
    return pa.table([present.get(field.name, pa.nulls(len(data), field.type)) for field in columns], schema=columns)


# -- who filters


@dataclass(frozen=True)
class Took:
    """One command's wall time, its processor time and its most memory."""

    seconds: float
    processor: float
    mib: int

    def text(self, rows: int) -> str:
        """For a line."""
        return f"{self.seconds:7.2f} s  {rows / self.seconds / 1e6:6.2f} M rows/s  {self.processor:7.2f} s of processors  {self.mib:6,} MiB"


def measured(command: Sequence[str]) -> Took:
    """Runs a command in a process of its own."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Took(time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10)


def ours(folder: Path, *more: str) -> Took:
    """curate's command."""
    return measured([sys.executable, "-m", "curate", "filter", str(folder / "pool"), str(folder / "bench.sql"), *more])


def written(folder: Path, number: int) -> Took:
    """curate's decisions under a name that the pool does not have yet; they go again."""
    took = ours(folder, f"name=bench_{number}")
    shutil.rmtree(folder / "pool" / "tables" / f"decisions_bench_{number}")
    return took


def peer(folder: Path) -> Took:
    """DuckDB alone, from one file to one file."""
    return measured([sys.executable, "-m", "tests.bench.filter", "peer", "--folder", str(folder)])


def copy(folder: Path) -> None:
    """What the peer does: the columns that decisions have."""
    first = f"CASE {' '.join(f'WHEN {sql} THEN {name!r}' for name, sql in RULES.items())} END"
    failed = ", ".join(f"CASE WHEN {sql} THEN {name!r} END" for name, sql in RULES.items())
    columns = f"part, row, {first} IS NULL AS keep, {first} AS reason, list_filter([{failed}], lambda x: x IS NOT NULL) AS failed_rules"
    select = f"SELECT {columns}, '{'0' * 32}' AS basis FROM '{folder / 'joined.parquet'}'"
    with duckdb.connect(config={"memory_limit": PEER_MEMORY, "temp_directory": str(folder / "spilled")}) as connection:
        connection.execute(f"COPY ({select}) TO '{folder / 'peer.parquet'}' (FORMAT parquet, COMPRESSION zstd)")


def main(folder: Path, rows: int, rounds: int) -> None:
    """Round by round, and the medians."""
    if not (folder / "joined.parquet").exists():
        subprocess.run([sys.executable, "-m", "tests.bench.filter", "make", str(rows), "--folder", str(folder)], check=True)
    rows = pq.ParquetFile(folder / "joined.parquet").metadata.num_rows
    found: dict[str, list[Took]] = {"preview": [], "written": [], "peer": []}
    for number in range(rounds):
        found["preview"].append(ours(folder, "--preview"))
        found["written"].append(written(folder, number))
        found["peer"].append(peer(folder))
        print("\n".join(f"{name:<8} {took[-1].text(rows)}" for name, took in found.items()), flush=True)
    rates = {name: round(rows / statistics.median(one.seconds for one in took)) for name, took in found.items()}
    peaks = {f"{name}_mib": max(one.mib for one in took) for name, took in found.items()}
    busy = {f"{name}_processor_seconds": statistics.median(one.processor for one in took) for name, took in found.items()}
    told = {"ours": rates["written"], "peer": rates["peer"], "unit": "rows/s", "rounds": rounds, "rows": rows, "preview": rates["preview"]}
    print(json.dumps({"name": "filter", "ratio": round(rates["written"] / rates["peer"], 3), **told, **peaks, **busy}))


def words() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("tests.bench.filter")
    parser.add_argument("rows", nargs="*", default=[str(ROWS)])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept, and made up only once")
    return parser.parse_args()


if __name__ == "__main__":
    said = words()
    if said.rows[0] == "make":
        said.folder.mkdir(parents=True, exist_ok=True)
        make(said.folder, int(said.rows[1]))
    elif said.rows[0] == "peer":
        copy(said.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(said.folder or Path(temporary), int(said.rows[0]), said.rounds)
