"""curate: from URL lists to curated image-text shards, and tables that say what became of every row.

`pool = curate.open(path)` offers in Python what the command `curate` does at a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.api import Pool
    from curate.progress import Progress

__all__ = ["open"]


def open(path: str, progress: Progress | None = None) -> Pool:
    """The pool at `path`; long calls report to `progress`. Raises UsageError when there is none."""
    from curate.api import Pool
    from curate.store import Pool as Store

    return Pool(Store.open(path), progress)
