"""What is to be requested of one part: rows that stand are taken over, rows that share a request have one owner."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curate.fetch.rows import Asked, Done, Record
from curate.fetch.settings import FetchSettings
from curate.fetch.standing import Elsewhere, standing
from curate.fetch.wish import EMPTY, Wish, read_wishes, wish_columns
from curate.parquet import read_columns, read_schema, read_table
from curate.stage import WORKER_CRASHED, PartTask
from curate.store import Pool
from curate.suppress import REASON as WITHDRAWN
from curate.suppress import Suppression

_KEPT = ["row", "sample_id", "url", "caption"]
_ROW_COLUMNS = (*_KEPT, "url_id", "reason", "earlier_parts")


@dataclass
class Part:
    """Rows of a part, and for each where its outcome comes from: a reason to skip, an earlier record, or a request.

    Several parts wait at once, with all their rows: what is kept of a row stays in Arrow.
    """

    rows: pa.Table  # row, sample_id, url, caption
    wishes: dict[int, Wish]  # where the list says something of the file
    skips: list[str | None]
    earlier: dict[int, Record]
    owners: Sequence[int]  # rows in whose names something is requested
    numbers: Sequence[int]  # for each row which of these requests is its own as well; -1 for none
    done: Done = field(default_factory=Done)  # outcomes of the owners' requests, in their order

    def sources(self) -> list[int | Record]:
        """For each row what `done.column` takes its columns of `fetched` from."""
        return [self._source(index, skip) for index, skip in enumerate(self.skips)]

    def _source(self, index: int, skip: str | None) -> int | Record:
        if skip is not None:
            return {"reason": skip}
        return self.earlier[index] if index in self.earlier else self.numbers[index]

    def telemetry_sources(self, before: Sequence[Record]) -> list[int | Record]:
        """The same for telemetry: rows that were not requested themselves keep their line of `before`."""
        numbers = {index: number for number, index in enumerate(self.owners)}
        return [numbers.get(index, line) for index, line in enumerate(before)]

    def asked(self, size: int) -> Iterator[list[Asked]]:
        """What is to be requested, in batches of `size`."""
        for start in range(0, len(self.owners), size):
            indices = self.owners[start : start + size]
            urls = self.rows["url"].take(pa.array(indices)).to_pylist()
            yield [(url, None, self.wishes.get(index, EMPTY)) for url, index in zip(urls, indices, strict=True)]

    def sample(self, index: int) -> tuple[str, str]:
        """sample_id and caption of a row."""
        return str(self.rows["sample_id"][index]), str(self.rows["caption"][index].as_py() or "")


def plan_part(task: PartTask, pool: Pool, settings: FetchSettings, elsewhere: Elsewhere, suppression: Suppression) -> Part:
    """Reads the part's rows and finds out what must be asked."""
    table = read_columns(task.inputs["rows"], _ROW_COLUMNS).combine_chunks()
    wishes = _wishes(task.inputs["rows"], settings)
    url_ids = table["url_id"].to_pylist()
    asked = [f"{url_id} {wishes[index]}" if index in wishes else url_id for index, url_id in enumerate(url_ids)]
    skips = _skips(table, task.inputs.get("decisions_prefilter"), suppression)
    earlier = standing(task, url_ids, skips)
    known = {asked[index]: record for index, record in reversed(earlier.items())}
    for index, row in enumerate(table["row"].to_pylist()):
        if row in task.without and skips[index] is None and index not in earlier:
            skips[index] = WORKER_CRASHED
    unknown = [index for index in range(len(asked)) if skips[index] is None and index not in earlier]
    new = [index for index in unknown if asked[index] not in known and index not in wishes]
    known = _of_earlier_lists(pool, elsewhere, table, new) | known
    requests: dict[str, int] = {}
    owners, numbers = array("q"), array("q", [-1]) * len(asked)
    for index in unknown:
        if asked[index] in known:
            earlier[index] = known[asked[index]]
            continue
        number = requests.setdefault(asked[index], len(owners))
        if number == len(owners):
            owners.append(index)
        numbers[index] = number
    return Part(table.select(_KEPT), wishes, skips, earlier, owners, numbers)


def _of_earlier_lists(pool: Pool, elsewhere: Elsewhere, table: pa.Table, new: Sequence[int]) -> dict[str, Record]:
    """Records of the same URLs in parts of earlier lists; what a list promises of a file has to be checked by a request."""
    if "earlier_parts" not in table.schema.names:
        return {}
    some = table.select(["url_id", "earlier_parts"]).take(pa.array(new, pa.int64()))
    found = zip(some["url_id"].to_pylist(), some["earlier_parts"].to_pylist(), strict=True)
    return elsewhere.records(pool, {url_id: parts for url_id, parts in found if parts})


def _wishes(path: str, settings: FetchSettings) -> dict[int, Wish]:
    """What the list says about the files, by row; nothing for most."""
    wanted = wish_columns(read_schema(path).names, settings.blur_column, settings.verify_hash)
    if not wanted:
        return {}
    found = enumerate(read_wishes(read_table(path, list(wanted.values())), wanted))
    return {index: wish for index, wish in found if wish is not EMPTY}


def _skips(table: pa.Table, prefilter: str | None, suppression: Suppression) -> list[str | None]:
    """Why each row is not requested: its own reason first, then the prefilter's; what was taken down in any case."""
    own: list[str | None] = table["reason"].to_pylist()
    refused = {} if prefilter is None else _refused(prefilter)
    skips = [reason or refused.get(row) for reason, row in zip(own, table["row"].to_pylist(), strict=True)]
    if suppression:
        barred = suppression.rows(table["sample_id"].to_pylist(), table["url_id"].to_pylist())
        for index in barred.nonzero()[0].tolist():
            skips[index] = own[index] or WITHDRAWN
    return skips


def _refused(prefilter: str) -> dict[int, str]:
    """The prefilter's reasons by row."""
    decisions = read_table(prefilter, ["row", "keep", "reason"])
    columns = (decisions.column(name).to_pylist() for name in ("row", "keep", "reason"))
    return {row: reason or "prefilter" for row, keep, reason in zip(*columns, strict=True) if reason or keep is False}
