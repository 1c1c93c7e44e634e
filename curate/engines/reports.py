"""What workers leave behind who hold no lease: one small report for each part, for whoever commits.

    POOL/reports/<table>/<part>-<sha256 of its text>.json
    POOL/reports/<table>/<identity of the phase>.schema

A report appears by a rename, after the files that it names; its name holds its own hash, so that half of one is never
taken for a whole one. It says what the part was computed from, so that a commit refuses what is no longer true. Two
reports on one part (twins) are one where the values are equal, and else the second comes too late.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from curate.stage import PartFile, PartReport, PartTask, Phase
from curate.store import Pool

FOLDER = "reports"


@dataclass(frozen=True)
class Left:
    """One report on disk. `inputs` are file names by table, `previous` the part's committed file that it brings up to date."""

    path: Path
    table: str
    identity: str
    inputs: Mapping[str, str]
    absent: Sequence[str]  # tables that the phase would read, and that did not exist
    previous: str | None
    basis: str
    without: Sequence[int]  # rows that were left out, to find those that kill their worker: no commit takes such a report
    report: PartReport

    @property
    def is_whole(self) -> bool:
        """Whether the files that it names are there, in their size: below a table's folder, or of a round below the pool."""
        pool = self.path.parents[2] if self.table else self.path.parents[1]
        places = [(pool / "tables" / file.table / file.path, pool / file.path, file.size_bytes) for file in self.report.files]
        return all(size in (_size(of_table), _size(of_round)) for of_table, of_round, size in places)


def leave(pool: Pool, phase: Phase, identity: str, task: PartTask, report: PartReport) -> None:
    """Publishes a part's report, and the schema of the phase's table beside it."""
    folder = f"{FOLDER}/{phase.table}"
    schema = pool.path / folder / f"{identity}.schema"
    if not schema.exists():
        temporary = pool.temporary(".schema")
        temporary.write_bytes(phase.schema.serialize().to_pybytes())
        schema.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(schema)
    said = {
        "identity": identity,
        "inputs": {table: Path(path).name for table, path in task.inputs.items()},
        "absent": [table for table in phase.inputs if table not in task.inputs],
        "previous": task.previous and Path(task.previous).name,
        "basis": task.basis,
        "without": sorted(task.without),
        "report": asdict(report),
    }
    temporary = pool.temporary(".json")
    temporary.write_text(json.dumps(said))
    pool.publish(temporary, folder, f"{task.part:05d}")


def tables(pool: Pool) -> list[str]:
    """Tables of which reports lie in the pool."""
    return sorted({path.parent.name for path in (pool.path / FOLDER).glob("*/*.json")})


def names(pool: Pool, table: str) -> list[str]:
    """File names of the reports on a table's parts, twins together."""
    try:
        return sorted(path.name for path in (pool.path / FOLDER / table).iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []


def read(pool: Pool, table: str, name: str) -> Left | None:
    """The report in the file of that name, or None for what is not (or no longer) a whole one."""
    path = pool.path / FOLDER / table / name
    try:
        text = path.read_bytes()
        if hashlib.sha256(text).hexdigest() != path.stem.split("-", 1)[1]:
            return None
        said = json.loads(text)
        told = said["report"]
        report = PartReport(told["part"], tuple(PartFile(**file) for file in told["files"]), told["reasons"], told["counters"])
        meant = {name: said[name] for name in ("identity", "inputs", "absent", "previous", "basis", "without")}
        return Left(path=path, table=table, report=report, **meant)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def schema_of(pool: Pool, left: Left) -> pa.Schema:
    """Schema of the report's table."""
    return pa.ipc.read_schema(pa.py_buffer((left.path.parent / f"{left.identity}.schema").read_bytes()))


def answers(left: Left, task: PartTask) -> bool:
    """Whether the report is what the task asks for."""
    previous = task.previous and Path(task.previous).name
    return (left.basis, left.previous, left.without) == (task.basis, previous, sorted(task.without)) and left.is_whole


def named_files(pool: Pool) -> Iterator[Path]:
    """Table files that reports name and that may not be committed yet."""
    for table in tables(pool):
        for name in names(pool, table):
            left = read(pool, table, name)
            for file in left.report.files if left else ():
                yield pool.table_folder(file.table) / file.path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
