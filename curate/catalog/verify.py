"""Verification: every input row ends once, tables line up, reasons are known, files are what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Concatenate, ParamSpec

import duckdb
import numpy as np
import pyarrow as pa

from curate.catalog.files import check_copies, check_embeddings, check_hashes, check_images
from curate.catalog.findings import NAMED_OFFENDERS, Check, VerifyReport
from curate.catalog.packed import check_shards, pinned_versions
from curate.catalog.subsets import read_subset
from curate.catalog.views import NO_POLICY, connect, pin, policies, quoted
from curate.errors import REASONS, RemovalUnfinished, UsageError
from curate.lease import refuse_unfinished
from curate.parquet import read_table
from curate.schema import KEY
from curate.store import Pool, Snapshot

P = ParamSpec("P")
_ALIGNED = ("fetched", "decisions_", "scores_", "groups_")


def verify(pool: Pool, deep: bool = True) -> VerifyReport:
    """Checks the whole pool; without `deep`, sizes and tables only, no bytes of images are read.

    Never raises for what it finds; `VerifyReport.require` does.
    """
    snapshots = pin(pool)
    checks = [
        _checked(
            "file hashes", "listed files are there; names that carry a sha256 carry the right one", check_hashes, pool, snapshots, deep
        ),
        _checked("copies", "compacted files hold the rows of the parts that they stand in for", check_copies, pool, snapshots),
        _checked("alignment", "every table has the rows of its part, in order, once", check_alignment, snapshots),
        _checked("row accounting", "rows in = kept + dropped + failed + pending, each row once", check_accounting, pool),
        _checked("reasons", "every reason is known, or a rule of the policy that gave it", check_reasons, pool),
        _checked("decisions", "kept rows have no reason, dropped rows one that they fail", check_decisions, pool),
        _checked("images", "fetched rows and images in tars belong together, bytes as recorded", check_images, pool, snapshots, deep),
        _checked("embeddings", "one line per row of the part; zero where there is no score", check_embeddings, pool, snapshots),
        _checked("withdrawn", "nothing on the suppression list is stored, and no removal is half done", check_withdrawn, pool, snapshots),
        _checked("shards", "kept rows, lines of table shards and tar members are one to one", check_shards, pool, snapshots, deep),
    ]
    return VerifyReport(tuple(checks), deep)


def _checked(name: str, promise: str, look: Callable[Concatenate[Check, P], None], *given: P.args, **named: P.kwargs) -> Check:
    """A check's outcome; tables too damaged to be read fail it."""
    check = Check(name, promise)
    try:
        look(check, *given, **named)
    except (duckdb.Error, pa.ArrowException, OSError, UsageError) as error:
        check.fail(f"cannot be checked: {str(error).splitlines()[0]}")
    return check


def check_withdrawn(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot]) -> None:
    """No row has an image that was taken down, and no takedown or purge was left in the middle."""
    check.checked += 1
    try:
        refuse_unfinished(pool)
    except RemovalUnfinished as error:
        check.fail(str(error))
    if "suppressed" not in snapshots:
        return
    with connect(pool, NO_POLICY) as connection:
        check.checked += _count(connection, "SELECT count(*) FROM suppressed")
        for part, row in connection.execute(_STORED_AGAIN).fetchall():
            check.fail(f"part {part}, row {row} has an image that is on the suppression list")


_STORED_AGAIN = """
    SELECT part, row FROM "rows" JOIN fetched USING (part, row) WHERE tar_file IS NOT NULL AND (
        url_id IN (SELECT url_id FROM suppressed WHERE url_id IS NOT NULL)
        OR sample_id IN (SELECT sample_id FROM suppressed WHERE sample_id IS NOT NULL)
        OR sha256 IN (SELECT sha256 FROM suppressed WHERE sha256 IS NOT NULL)
        OR image_sha256 IN (SELECT image_sha256 FROM suppressed WHERE image_sha256 IS NOT NULL)
    ) ORDER BY part, row
"""


def check_accounting(check: Check, pool: Pool) -> None:
    """rows in = kept + dropped + failed + pending, under every policy that was applied."""
    for policy in policies(pool) or [NO_POLICY]:
        with connect(pool, policy) as connection:
            rows = _count(connection, 'SELECT count(*) FROM "rows"')
            ends = _count(connection, "SELECT count(*) FROM samples WHERE outcome IN ('kept', 'dropped', 'failed', 'pending')")
            distinct = _count(connection, "SELECT count(DISTINCT (part, row)) FROM samples")
        check.checked += rows
        if not rows == ends == distinct:
            check.fail(f"{policy or 'no policy'}: {rows:,} rows in, {ends:,} ends, {distinct:,} distinct rows")


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    found = connection.execute(sql).fetchone()
    return int(found[0]) if found else 0


# -- alignment


def check_alignment(check: Check, snapshots: Mapping[str, Snapshot]) -> None:
    """Each part of each row-aligned table has exactly the part's rows, in order, once."""
    if "rows" not in snapshots:
        return
    keys = _part_lengths(snapshots["rows"], check)
    for name, snapshot in sorted(snapshots.items()):
        if name.startswith(_ALIGNED):
            for part, offender in _misaligned(snapshot, keys):
                check.require(not offender, f"{name}, part {part}: {offender}")


def _part_lengths(snapshot: Snapshot, check: Check) -> dict[int, int]:
    """Rows of each part of table `rows`, whose `row` must count from 0."""
    lengths: dict[int, int] = {}
    for file in snapshot.files:
        found = _numbers(snapshot, file.path)
        wanted = np.arange(len(found["row"]))
        check.require(file.part not in lengths, f"rows, part {file.part}: two files for one part")
        check.require(np.array_equal(found["row"], wanted), f"rows, part {file.part}: {_first_difference(found['row'], wanted)}")
        check.require(bool((found["part"] == file.part).all()), f"rows, part {file.part}: holds rows of another part")
        lengths[file.part] = len(found["row"])
    return lengths


def _misaligned(snapshot: Snapshot, lengths: Mapping[int, int]) -> Iterator[tuple[int, str]]:
    seen: set[int] = set()
    for file in snapshot.files:
        found = _numbers(snapshot, file.path)
        if file.part in seen:
            yield file.part, "two files for one part"
        elif file.part not in lengths:
            yield file.part, "table rows has no such part"
        elif not bool((found["part"] == file.part).all()):
            yield file.part, "holds rows of another part"
        else:
            wanted = np.arange(lengths[file.part])
            yield file.part, "" if np.array_equal(found["row"], wanted) else _first_difference(found["row"], wanted)
        seen.add(file.part)


def _numbers(snapshot: Snapshot, path: str) -> dict[str, np.ndarray]:
    data = read_table(snapshot.folder / path, KEY)
    return {name: data[name].to_numpy() for name in KEY}


def _first_difference(found: np.ndarray, wanted: np.ndarray) -> str:
    missing = np.setdiff1d(wanted, found)
    if len(missing):
        return f"row {missing[0]} is missing ({len(missing):,} in all)"
    extra = np.setdiff1d(found, wanted)
    if len(extra):
        return f"row {extra[0]} is not in table rows ({len(extra):,} in all)"
    values, counts = np.unique(found, return_counts=True)
    twice = values[counts > 1]
    return f"row {twice[0]} stands more than once" if len(twice) else "rows are out of order"


# -- reasons and decisions


def check_reasons(check: Check, pool: Pool) -> None:
    """Every reason is in the closed list, or is a rule of the policy that gave it."""
    with connect(pool, NO_POLICY) as connection:
        for table in [name for name in pool.tables() if name.startswith(("rows", *_ALIGNED)) and not name.startswith("groups_")]:
            known = {*REASONS, *_own_rules(pool, table)}
            for reason, rows, part, row in connection.execute(_reasons_sql(table)).fetchall():
                check.checked += rows
                if reason not in known:
                    check.fail(f"{table}: unknown reason {reason!r}, first at part {part}, row {row}", rows)


def _own_rules(pool: Pool, table: str) -> tuple[str, ...]:
    if not table.startswith("decisions_") or table == "decisions_prefilter":
        return ()
    subset = read_subset(pool, table.removeprefix("decisions_"))
    return (*subset.rules, *subset.user_reasons)


def _reasons_sql(table: str) -> str:
    plain = f"SELECT part, row, reason FROM {quoted(table)} WHERE reason IS NOT NULL"
    if table.startswith("decisions_"):
        plain += f" UNION ALL SELECT part, row, unnest(failed_rules) FROM {quoted(table)}"
    return f"SELECT reason, count(*), min((part, row))[1], min((part, row))[2] FROM ({plain}) GROUP BY reason ORDER BY reason"


def check_decisions(check: Check, pool: Pool) -> None:
    """A row is kept exactly when nothing speaks against it; a decision never keeps a row without an image.

    Decisions are held against the versions that they were made from: what was fetched since is pending, not wrong. Those made
    before anything was fetched are held against their rules alone.
    """
    for policy in policies(pool):
        subset = read_subset(pool, policy)
        early = "fetched" not in subset.found.get("tables", {"fetched": 0})
        versions = pinned_versions(pool, subset)
        versions.pop(f"decisions_{policy}", None)
        with connect(pool, policy, versions) as connection:
            check.checked += _count(connection, f"SELECT count(*) FROM {quoted(f'decisions_{policy}')}")
            for sentence, condition in _CONTRADICTIONS.items():
                if early and sentence in _SINCE_FETCH:
                    continue
                rows = _count(connection, f"SELECT count(*) FROM samples WHERE {condition}")
                first = connection.execute(f"SELECT part, row FROM samples WHERE {condition} ORDER BY part, row LIMIT {NAMED_OFFENDERS}")
                named = first.fetchall()
                for part, row in named:
                    check.fail(f"{policy}: part {part}, row {row} {sentence}")
                check.failures += rows - len(named)


_SINCE_FETCH = ("is kept although it has a reason", "is kept without an image")
_CONTRADICTIONS = {
    "is kept although it has a reason": "keep AND reason IS NOT NULL",
    "is kept although it fails a rule": "keep AND len(failed_rules) > 0",
    "is kept without an image": "keep AND tar_file IS NULL",
    "is dropped without a reason": "keep = false AND reason IS NULL",
    "is dropped for a rule that it does not fail": "phase = 'filter' AND NOT coalesce(list_contains(failed_rules, reason), false)",
}
