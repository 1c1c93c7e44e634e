"""What need not be asked again: a part's records of an earlier pass, and those of the same URLs in parts of earlier lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import REASONS
from curate.fetch.rows import RESULT_COLUMNS, TAR_COLUMNS, TELEMETRY_COLUMNS, Record
from curate.parquet import read_columns, read_table
from curate.stage import PartTask, fingerprint
from curate.store import Pool, Snapshot
from curate.suppress import REASON as WITHDRAWN

TELEMETRY = "telemetry_fetch"
PURGED = "purged"
UNASKED: Record = {"attempts": 0, "bytes_read": 0}
_RECORD = (*RESULT_COLUMNS, *TAR_COLUMNS)


def stands(reason: str | None) -> bool:
    """Whether an outcome is final: an image, or a failure that another try would not mend.

    A refusal at plan or prefilter that no longer holds was never an answer of the web.
    """
    if reason is None:
        return True
    return reason in REASONS and not REASONS[reason].retryable and reason not in ("prefilter", "duplicate_row")


def standing(task: PartTask, url_ids: Sequence[str], skips: Sequence[str | None]) -> dict[int, Record]:
    """Records of the part's previous file that are taken over, by row: all but those chosen, or without a choice those that stand."""
    if task.previous is None:
        return {}
    records = read_columns(task.previous, _RECORD).to_pylist()
    if len(records) != len(url_ids):
        return {}
    if task.again is None:
        return {at: record for at, record in enumerate(records) if skips[at] is None and stands(record["reason"])}
    redone = chosen(task)
    return {at: record for at, record in enumerate(records) if skips[at] is None and url_ids[at] not in redone}


def chosen(task: PartTask) -> frozenset[str]:
    """url_ids of the rows of the previous file that `task.again` means; rows that share a URL are chosen together."""
    if task.again is None or task.previous is None:
        return frozenset()
    reasons = read_table(task.previous, ["reason"])["reason"]
    meant = pc.is_in(reasons, value_set=pa.array(task.again.reasons, pa.string()))
    if not pc.any(meant).as_py():
        return frozenset()
    url_ids = read_table(task.inputs["rows"], ["url_id"])["url_id"]
    found = frozenset(url_ids.filter(meant).to_pylist())
    return found if task.again.before is None else found - _asked_since(task, url_ids)


def _asked_since(task: PartTask, url_ids: pa.ChunkedArray) -> frozenset[str]:
    """url_ids that were asked at `task.again.before` or later.

    Telemetry is committed before the table that it tells about. Where a run was killed between the two, what it asked
    is not known, and must be asked again.
    """
    path = task.beside.get(TELEMETRY)
    if path is None or task.again is None or task.previous is None:
        return frozenset()
    lines = read_table(path, ["finished_at", "basis"])
    told = {str(lines["basis"][0])} if lines.num_rows else set()
    if not told <= {task.basis, telemetry_basis(task.basis, task.previous)}:
        return frozenset()
    since = pc.fill_null(pc.greater_equal(lines["finished_at"], pa.scalar(task.again.before, pa.timestamp("us", "UTC"))), False)
    return frozenset(url_ids.filter(since).to_pylist())


def telemetry_basis(basis: str, fetched_file: str) -> str:
    """The `basis` of telemetry: it names the file of `fetched` beside which it was written."""
    return fingerprint(TELEMETRY, basis, Path(fetched_file).name)


def kept_telemetry(task: PartTask) -> list[Record]:
    """Lines of earlier passes, one for each row of the part; empty when there are none."""
    path = task.beside.get(TELEMETRY)
    return [] if path is None else read_columns(path, TELEMETRY_COLUMNS).to_pylist()


class Elsewhere:
    """Records of URLs in parts of earlier lists, as they are committed; the lists are fetched in their order."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[Snapshot, Snapshot]] = {}

    def records(self, pool: Pool, wanted: Mapping[str, Sequence[int]]) -> dict[str, Record]:
        """Records that stand, by url_id; `wanted` names for each url_id the parts in which to look, earliest first.

        Where one sample of a URL was taken down and its image stays for another, the image is found. Bytes that were deleted
        to free space were those of samples that nobody wanted, which says nothing of another sample: the URL is asked again.
        """
        found: dict[str, Record] = {}
        barred: dict[str, Record] = {}
        by_part: dict[int, list[str]] = {}
        for url_id, parts in wanted.items():
            for part in parts:
                by_part.setdefault(part, []).append(url_id)
        for part in sorted(by_part):
            missing = [url_id for url_id in by_part[part] if url_id not in found]
            if missing:
                for url_id, record in self._of_part(pool, part, missing):
                    (barred if record["reason"] == WITHDRAWN else found).setdefault(url_id, record)
        return barred | found

    def _of_part(self, pool: Pool, part: int, url_ids: list[str]) -> list[tuple[str, Record]]:
        key = str(pool.path)
        if key not in self._tables:
            self._tables[key] = (pool.snapshot("rows"), pool.snapshot("fetched"))
        rows, fetched = self._tables[key]
        if part not in rows.by_part or part not in fetched.by_part:
            return []
        ids = read_table(rows.path_of(part), ["url_id"])["url_id"]
        records = read_columns(fetched.path_of(part), _RECORD)
        if records.num_rows != len(ids):
            return []
        places = pc.indices_nonzero(pc.is_in(ids, value_set=pa.array(url_ids, pa.string())))
        found = zip(ids.take(places).to_pylist(), records.take(places).to_pylist(), strict=True)
        return [(url_id, record) for url_id, record in found if stands(record["reason"]) and record["reason"] != PURGED]
