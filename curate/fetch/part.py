"""What is to be requested of one part: rows that stand are taken over, rows that share a request have one owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.fetch.rows import Done, Record
from curate.fetch.settings import FetchSettings
from curate.fetch.standing import Elsewhere, standing
from curate.fetch.wish import EMPTY, read_wishes, wish_columns
from curate.parquet import read_columns, read_schema, read_table
from curate.stage import WORKER_CRASHED, PartTask
from curate.store import Pool
from curate.suppress import REASON as WITHDRAWN
from curate.suppress import Suppression

_ROW_COLUMNS = ("row", "sample_id", "url_id", "url", "caption", "reason", "earlier_parts")


@dataclass
class Part:
    """Rows of a part, and for each where its outcome comes from: a reason to skip, an earlier record, or a request."""

    rows: list[dict[str, Any]]
    skips: list[str | None]
    earlier: dict[int, Record]
    owners: dict[str, int]  # what is asked for -> index of the row in whose name it is requested
    done: Done = field(default_factory=Done)  # outcomes of the owners' requests, in their order

    def sources(self) -> list[int | Record]:
        """For each row what `done.column` takes its columns of `fetched` from."""
        numbers = {asked: number for number, asked in enumerate(self.owners)}
        return [self._source(index, row, numbers) for index, row in enumerate(self.rows)]

    def _source(self, index: int, row: dict[str, Any], numbers: Mapping[str, int]) -> int | Record:
        if self.skips[index] is not None:
            return {"reason": self.skips[index]}
        return self.earlier[index] if index in self.earlier else numbers[_asked(row)]

    def telemetry_sources(self, before: Sequence[Record]) -> list[int | Record]:
        """The same for telemetry: rows that were not requested themselves keep their line of `before`."""
        numbers = {index: number for number, index in enumerate(self.owners.values())}
        return [numbers.get(index, line) for index, line in enumerate(before)]


def plan_part(task: PartTask, pool: Pool, settings: FetchSettings, elsewhere: Elsewhere, suppression: Suppression) -> Part:
    """Reads the part's rows and finds out what must be asked."""
    rows = _rows(task.inputs["rows"], settings)
    skips = _skips(rows, task.inputs.get("decisions_prefilter"))
    for index, row in enumerate(rows):
        if suppression.holds(row["sample_id"], row["url_id"]):
            skips[index] = row["reason"] or WITHDRAWN
    earlier = standing(task, [str(row["url_id"]) for row in rows], skips)
    known = {_asked(rows[index]): record for index, record in reversed(earlier.items())}
    unknown = [index for index in range(len(rows)) if skips[index] is None and index not in earlier]
    for index in unknown:
        if rows[index]["row"] in task.without:
            skips[index] = WORKER_CRASHED
    unknown = [index for index in unknown if skips[index] is None]
    known = _of_earlier_lists(pool, elsewhere, [rows[index] for index in unknown if _asked(rows[index]) not in known]) | known
    owners: dict[str, int] = {}
    for index in unknown:
        asked = _asked(rows[index])
        if asked in known:
            earlier[index] = known[asked]
        else:
            owners.setdefault(asked, index)
    return Part(rows, skips, earlier, owners)


def _of_earlier_lists(pool: Pool, elsewhere: Elsewhere, rows: list[dict[str, Any]]) -> dict[str, Record]:
    """Records of the same URLs in parts of earlier lists; what a list promises of a file has to be checked by a request."""
    wanted = {str(row["url_id"]): row["earlier_parts"] for row in rows if row.get("earlier_parts") and not row.get("wish")}
    return elsewhere.records(pool, wanted)


def _rows(path: str, settings: FetchSettings) -> list[dict[str, Any]]:
    """Lines of the part's rows, each with what the list says about the file: `wish`."""
    rows: list[dict[str, Any]] = read_columns(path, _ROW_COLUMNS).to_pylist()
    wanted = wish_columns(read_schema(path).names, settings.blur_column, settings.verify_hash)
    if not wanted:
        return rows
    wishes = read_wishes(read_table(path, list(wanted.values())), wanted)
    for row, wish in zip(rows, wishes, strict=True):
        if wish is not EMPTY:
            row["wish"] = wish
    return rows


def _asked(row: Mapping[str, Any]) -> str:
    """Rows share one request when they share the URL and the list says the same about what is there."""
    wish = row.get("wish")
    return f"{row['url_id']} {wish}" if wish else str(row["url_id"])


def _skips(rows: list[dict[str, Any]], prefilter: str | None) -> list[str | None]:
    """Why each row is not requested: its own reason first, then the prefilter's."""
    own = [None if row["reason"] is None else str(row["reason"]) for row in rows]
    if prefilter is None:
        return own
    decisions = read_table(prefilter, ["row", "keep", "reason"])
    refused = {
        row: reason or "prefilter"
        for row, keep, reason in zip(*(decisions.column(name).to_pylist() for name in ("row", "keep", "reason")), strict=True)
        if reason or keep is False
    }
    return [reason or refused.get(row["row"]) for reason, row in zip(own, rows, strict=True)]
