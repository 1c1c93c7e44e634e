"""The Python face of a pool: everything that the command line does, as methods.

    import curate
    pool = curate.open("demo-pool")
    pool.sql("SELECT reason, count(*) FROM samples GROUP BY 1").df()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.catalog.funnel import Funnel, funnel
from curate.catalog.sql import query, render
from curate.errors import MissingExtra
from curate.progress import Progress, Silent
from curate.store import Pool as Store

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


class Answer:
    """What SQL answered: `arrow()`, `df()`, `rows()`; printed, it is an aligned table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def arrow(self) -> pa.Table:
        """As an Arrow table."""
        return self._table

    def df(self) -> pandas.DataFrame:
        """As a pandas DataFrame."""
        return self._table.to_pandas()

    def rows(self) -> list[dict[str, Any]]:
        """As one dict a line."""
        lines: list[dict[str, Any]] = self._table.to_pylist()
        return lines

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return render(self._table)


class Pool:
    """An opened pool. Methods that change it hold its lease while they work, as the commands do."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self._store = store
        self._progress = progress or Silent()

    @property
    def path(self) -> Path:
        """The pool's folder."""
        return self._store.path

    def sql(self, select: str, policy: str | None = None) -> Answer:
        """The answer to one SELECT over `samples` and the pool's tables; `policy` says whose decisions `samples` shows."""
        return Answer(query(self._store, select, policy))

    def funnel(self, policy: str | None = None) -> Funnel:
        """What each step and each rule took out."""
        return funnel(self._store, policy)
