"""Where a pool stands: parts done, rows by reason, who is writing, sizes on disk."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.catalog.subsets import read_subset
from curate.catalog.views import connect, current_policy, pin
from curate.lease import REMOVAL, lease_holder
from curate.monitor.documents import RunStatus, runs
from curate.store import Pool, Snapshot

FOLDERS = ("tables", "compacted", "tars", "embeddings", "fitted", "models", "shards", "report", "tmp")


@dataclass(frozen=True)
class TableStatus:
    """One table: parts done out of the pool's parts, rows, and who writes it right now (host, pid, since; None: nobody)."""

    table: str
    version: int
    parts: int
    parts_wanted: int
    rows: int
    writer: Mapping[str, object] | None


@dataclass(frozen=True)
class Status:
    """The whole pool at one moment."""

    path: str
    policy: str
    rows: int
    outcomes: Mapping[str, int]  # kept, dropped, failed, pending
    reasons: Mapping[str, int]  # most frequent first
    tables: tuple[TableStatus, ...]
    bytes_on_disk: Mapping[str, int]  # by folder
    withdrawn_subsets: tuple[str, ...] = ()  # decided on tables that a removal has taken away
    removal: str = ""  # takedown or purge: one is under way, or was interrupted
    runs: tuple[RunStatus, ...] = ()  # those that go on, those that died since, and the newest that is over
    reports: Mapping[str, int] = dataclasses.field(default_factory=dict)  # by table: left by workers, waiting for `curate commit`

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Lines for a terminal."""
        outcomes = ", ".join(f"{name} {rows:,}" for name, rows in self.outcomes.items())
        lines = [f"{self.path}", f"{self.rows:,} rows: {outcomes}", ""]
        lines += [line for run in self.runs for line in (*run.lines(), "")]
        for table in self.tables:
            writer = _writer(table.writer) if table.writer else ""
            lines.append(f"{table.table:<28} {table.parts:>6,} of {table.parts_wanted:,} parts {table.rows:>12,} rows{writer}")
        lines += [f"{count:,} reports on {table} wait: curate commit {self.path}" for table, count in self.reports.items()]
        lines += [f"subset {name} is withdrawn: apply its policy again" for name in self.withdrawn_subsets]
        lines += (
            [f"a {self.removal} is under way or was interrupted: curate {self.removal} {self.path}  finishes it"] if self.removal else []
        )
        lines += ["", *(f"{reason:<28} {rows:>12,}" for reason, rows in self.reasons.items())]
        lines += ["", *(f"{folder + '/':<28} {human_bytes(size):>12}" for folder, size in self.bytes_on_disk.items())]
        return "\n".join(lines) + "\n"


def status(pool: Pool) -> Status:
    """Looks at the newest version of everything; cheap enough to be asked while a run is going."""
    snapshots = pin(pool)
    policy = current_policy(pool)
    with connect(pool, policy) as connection:
        outcomes = dict(connection.execute("SELECT outcome, count(*) FROM samples GROUP BY outcome ORDER BY outcome").fetchall())
        sql = "SELECT reason, count(*) AS n FROM samples WHERE reason IS NOT NULL GROUP BY reason ORDER BY n DESC, reason"
        reasons = dict(connection.execute(sql).fetchall())
    wanted = len(snapshots["rows"].by_part) if "rows" in snapshots else 0
    tables = tuple(_table_status(pool, found, wanted) for found in snapshots.values())
    sizes = {folder: _folder_bytes(pool.path / folder) for folder in FOLDERS}
    names = sorted(path.stem for path in (pool.path / "subsets").glob("*.json"))
    withdrawn = tuple(name for name in names if read_subset(pool, name).found.get("withdrawn"))
    removal = str((pool.read_document(REMOVAL) or {}).get("kind", ""))
    return Status(
        str(pool.path),
        policy,
        sum(outcomes.values()),
        outcomes,
        reasons,
        tables,
        sizes,
        withdrawn,
        removal,
        shown_runs(pool),
        _reports(pool),
    )


def shown_runs(pool: Pool) -> tuple[RunStatus, ...]:
    """The runs that a person wants to see: those under way, those that died after the last that came to its end, and that one."""
    known = runs(pool)
    over = [run for run in known if run.state not in ("running", "dead")]
    last = over[-1:]
    return tuple(
        [*last, *(run for run in known if run.state == "running" or (run.state == "dead" and run.begun > (last[0].begun if last else 0)))]
    )


def _reports(pool: Pool) -> dict[str, int]:
    """What workers without a lease have left for a commit."""
    found = collections.Counter(path.parent.name for path in (pool.path / "reports").glob("*/*.json"))
    return dict(sorted(found.items()))


def _writer(writer: Mapping[str, object]) -> str:
    ago = max(0.0, time.time() - float(str(writer["heard"])))
    return f"  ← process {writer['pid']} on {writer['host']}, heard {ago:.0f} s ago"


def _table_status(pool: Pool, snapshot: Snapshot, wanted: int) -> TableStatus:
    parts, rows = len(snapshot.by_part), sum(file.rows for file in snapshot.files)
    aligned = not snapshot.table.startswith(("pairs_", "shards", "evaluations", "suppressed"))
    return TableStatus(snapshot.table, snapshot.version, parts, wanted if aligned else parts, rows, lease_holder(pool, snapshot.table))


def _folder_bytes(folder: Path) -> int:
    """Files may vanish while we look: a run moves them."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def human_bytes(size: float) -> str:
    """`size` bytes in binary units, three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
