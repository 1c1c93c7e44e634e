"""curate: from URL lists to curated image-text shards, and tables that say what became of every row.

`pool = curate.open(path)` offers in Python what the command `curate` does at a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curate.api import Pool
    from curate.forecast import Estimate
    from curate.progress import Progress

__all__ = ["estimate", "open"]


def open(path: str, progress: Progress | None = None) -> Pool:
    """The pool at `path`; long calls report to `progress`. Raises UsageError when there is none."""
    from curate.api import Pool
    from curate.store import Pool as Store

    return Pool(Store.open(path), progress)


def estimate(
    path: str,
    overrides: Sequence[str] = (),
    *,
    rows: int = 1000,
    policy: str | None = None,
    price: float | None = None,
    keep: str | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What a list will cost and yield, from about `rows` of its rows that are really fetched; see `curate estimate --help`."""
    from curate.forecast import estimate as reckon

    return reckon(path, overrides, rows=rows, policy=policy, price=price, keep=keep, progress=progress)
