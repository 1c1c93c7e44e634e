"""A subset: one frozen outcome of a policy, with the version of every table that it was computed from."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from curate.errors import UsageError, Withdrawn
from curate.objects import ObjectPath
from curate.schema import nearest
from curate.settings import Settings
from curate.store import Pool, sync_file, sync_folder


class CutOutcome(Settings):
    """A cut that was chosen to keep a share: `kept` of `of` rows (which ones `denominator` says) have at least `cut`."""

    parameter: str
    fraction: float
    denominator: str
    column: str
    rule: str
    of: int
    kept: int
    cut: float
    ties_dropped: int  # rows that lie exactly on the cut and are over the count; the later sample_ids


class RuleCounts(Settings):
    """What one rule drops: as the first that fails, alone (whatever else fails), and as the only one."""

    first: int
    alone: int
    only: int


class Subset(Settings):
    """Which rows a policy keeps, and all that is needed to say so again."""

    name: str
    digest: str  # sha256 over sample_id and reason of every decided row
    basis: str  # fingerprint of policy, parameters and the files of every table
    policy: str  # name of its file, or `where`
    policy_text: str
    policy_sha256: str
    mode: str
    parameters: dict[str, float | str]
    cuts: tuple[CutOutcome, ...]
    rules: dict[str, RuleCounts]
    user_reasons: tuple[str, ...]  # rules that are not in curate's own list of reasons
    groups: str | None
    representative: str
    clip_column: str | None  # what clip_score stood for
    tables: dict[str, int]  # versions
    decisions_version: int
    rows: int
    kept: int
    refused: int  # rows that had a reason before the policy saw them
    pending: int  # rows not fetched or not scored yet
    dropped: dict[str, int]  # by reason
    withdrawn: bool = False  # rows of it were removed, and with them the older tables that it pins: it cannot be packed any more


def subset_path(pool: Pool, name: str) -> Path:
    """Where a subset's file lies."""
    return pool.path / "subsets" / f"{name}.json"


def subsets(pool: Pool) -> list[str]:
    """Names of the pool's subsets."""
    return sorted(path.stem for path in (pool.path / "subsets").glob("*.json"))


def read_subset(pool: Pool, name: str) -> Subset:
    """Reads a subset. Raises UsageError when there is none of that name."""
    try:
        subset = Subset.model_validate_json(subset_path(pool, name).read_text())
    except FileNotFoundError:
        offered = nearest(name, subsets(pool)) or f"; there are {', '.join(subsets(pool)) or 'none: apply a policy first'}"
        raise UsageError(f"the pool has no subset {name!r}{offered}") from None
    except ValidationError:
        raise UsageError(f"subset {name!r} was written by another version of curate: apply its policy again") from None
    if subset.name != name or "/" in name:  # its name becomes a folder's
        raise UsageError(f"subset {name!r} is not what its file says ({subset.name!r}): apply its policy again")
    return subset


def refuse_withdrawn(subset: Subset) -> None:
    """Raises Withdrawn for a subset whose tables can no longer be read as they were."""
    if subset.withdrawn:
        raise Withdrawn(
            f"subset {subset.name!r} is withdrawn: it was decided on older tables, and rows of these were removed since;"
            " apply its policy again with  curate filter"
        )


def write_subset(pool: Pool, subset: Subset) -> None:
    """Replaces the subset's file atomically."""
    write_text(pool, subset_path(pool, subset.name), subset.model_dump_json(indent=1) + "\n")


def write_text(pool: Pool, path: Path, text: str) -> None:
    """Replaces a small file atomically and durably."""
    if isinstance(path, ObjectPath):
        path.write_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pool.temporary(path.suffix)
    temporary.write_text(text, encoding="utf-8")
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)
