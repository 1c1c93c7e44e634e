"""Frozen subsets after a removal: counted again where they stood on the newest tables, marked `withdrawn` where on older ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from curate.filter.decide import decided_lines, line_ends
from curate.shards.subset import RuleCounts, Subset, read_subset, subsets, write_subset
from curate.store import Pool, Snapshot


@dataclass(frozen=True)
class Standing:
    """A subset before a removal: whether it pins what the tables hold now, and its digest."""

    is_fresh: bool
    digest: str


def standings(pool: Pool) -> dict[str, Standing]:
    """Every subset as it stands; those that cannot be read are left out."""
    found = {}
    for name in subsets(pool):
        subset = read_subset(pool, name)
        fresh = all(_same_files(pool, table, version) for table, version in pinned(subset).items())
        found[name] = Standing(fresh, subset.digest)
    return found


def pinned(subset: Subset) -> dict[str, int]:
    """Versions of all tables that a subset stands on, its decisions included."""
    return {**subset.tables, f"decisions_{subset.name}": subset.decisions_version}


def _same_files(pool: Pool, table: str, version: int) -> bool:
    now, then = pool.snapshot(table), _snapshot(pool, table, version)
    return then is not None and {file.path for file in then.files} == {file.path for file in now.files}


def _snapshot(pool: Pool, table: str, version: int) -> Snapshot | None:
    try:
        return pool.snapshot(table, version)
    except Exception as error:  # the log's beginning may have been cleaned away; delta-rs raises what it likes
        if type(error).__module__.startswith("deltalake") or isinstance(error, OSError | ValueError):
            return None
        raise


def settle(pool: Pool, before: Mapping[str, Standing]) -> dict[str, str]:
    """Brings every subset in line with the tables as they are after a removal; returns what became of each that changed:
    `counted again`, or `withdrawn`. Doing it twice changes nothing."""
    outcomes = {}
    for name, standing in before.items():
        subset = read_subset(pool, name)
        if standing.is_fresh:
            versions = {table: pool.snapshot(table).version for table in subset.tables}
            new = counted_again(pool, subset).model_copy(update={"tables": versions})
        elif any(_is_torn(pool, table, version) for table, version in pinned(subset).items()):
            new = counted_again(pool, subset).model_copy(update={"withdrawn": True})
        else:
            continue
        outcomes[name] = "counted again" if standing.is_fresh else "withdrawn"
        if new != subset:
            write_subset(pool, new)
    return outcomes


def _is_torn(pool: Pool, table: str, version: int) -> bool:
    """Whether a file of that version is there no more."""
    snapshot = _snapshot(pool, table, version)
    return snapshot is None or not all((snapshot.folder / file.path).exists() for file in snapshot.files)


def counted_again(pool: Pool, subset: Subset) -> Subset:
    """The subset with the counts, the digest and the version of its decisions as they are now."""
    table = f"decisions_{subset.name}"
    decisions, rows = pool.snapshot(table), pool.snapshot("rows")
    counts, first, alone, only = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    digest = hashlib.sha256()
    for part in sorted(decisions.by_part):
        data = decisions.read(["keep", "reason", "failed_rules"], [part])
        digest.update(decided_lines(rows.read(["sample_id"], [part])["sample_id"].combine_chunks(), line_ends(data)))
        for keep, reason, rules in zip(*(data[name].to_pylist() for name in ("keep", "reason", "failed_rules")), strict=True):
            counts["kept" if keep else "pending" if keep is None else "dropped" if reason else "refused"] += 1
            first.update([reason] if reason else [])
            alone.update(rules or [])
            only.update(rules if rules and len(rules) == 1 else [])
    names = (*subset.rules, *sorted(set(first) - set(subset.rules)))
    changes = {
        "digest": digest.hexdigest(),
        "decisions_version": decisions.version,
        "rules": {name: RuleCounts(first=first[name], alone=alone[name], only=only[name]) for name in subset.rules},
        "dropped": {name: first[name] for name in names if first[name]},
    }
    return subset.model_copy(update={**changes, **{name: counts[name] for name in ("kept", "refused", "pending")}})
