"""Refused before it is ever requested: a SQL condition, or a list of ids, over the planned rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import SettingsError, UsageError
from curate.lease import Run
from curate.plan.id_lists import Ids, read_ids
from curate.progress import Progress, Silent
from curate.schema import SOURCE_PREFIX, nearest, table
from curate.stage import PartFile, fingerprint
from curate.store import Pool, Snapshot

TABLE = "decisions_prefilter"
TASK = "prefilter"
_LOCKED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",
}


@dataclass(frozen=True)
class PrefilterReport:
    """Rows that pass, that the prefilter refuses and that planning had refused; and parts whose decisions are new."""

    passed: int
    refused: int
    refused_at_plan: int
    parts_changed: int


def prefilter(
    pool: Pool, run: Run, where: str | None = None, uid_file: str | None = None, progress: Progress | None = None
) -> PrefilterReport:
    """Decides for every planned row whether it may be requested, and commits the parts whose decisions changed.

    `where` is a SQL condition over the columns of `rows`; input columns also go by their bare names and as
    `source.name`. A row passes when it is true; false and null refuse it. `uid_file` keeps the rows whose `source.uid`,
    `sample_id` or `url_id` it holds. Raises SettingsError for SQL that does not hold, InputError for the id list.
    """
    progress = progress or Silent()
    rows = pool.snapshot("rows")
    if not rows.files:
        raise UsageError("the pool has no rows yet: plan a list first")
    ids = read_ids(uid_file) if uid_file is not None else None
    run.add(TABLE, table(TABLE))
    before = {file.part: file.path for file in pool.snapshot(TABLE).files}
    counts: Counter[str] = Counter()
    changed: list[PartFile] = []
    progress.start(TASK, len(rows.files), "parts")
    for part in sorted(rows.by_part):
        file = _decide(pool, rows, part, where, ids, counts)
        changed += [file] if before.get(part) != file.path else []
        progress.advance(TASK, 1, passed=counts["passed"])
    run.commit(TABLE, changed)
    progress.finish(TASK)
    return PrefilterReport(counts["passed"], counts["refused"], counts["refused_at_plan"], len(changed))


def _decide(pool: Pool, rows: Snapshot, part: int, where: str | None, ids: Ids | None, counts: Counter[str]) -> PartFile:
    data = rows.read(parts=[part])
    at_plan = data["reason"].is_valid().to_numpy()
    wanted = np.ones(data.num_rows, dtype=np.bool_)
    if where is not None:
        wanted &= _holds(data, where)
    if ids is not None:
        wanted &= _listed(data, ids)
    keep, refused = wanted & ~at_plan, ~wanted & ~at_plan
    counts.update(passed=int(keep.sum()), refused=int(refused.sum()), refused_at_plan=int(at_plan.sum()))
    decisions = {
        "row": data["row"],
        "keep": pa.array(keep),
        "reason": pa.array([TASK if bad else None for bad in refused], pa.string()),
        "failed_rules": pa.array([[TASK] if bad else None for bad in refused], pa.list_(pa.string())),
    }
    # The condition is no part of the basis: equal decisions are an equal file, and nothing is fetched again.
    return pool.write_part(TABLE, part, pa.table(decisions), fingerprint(TASK, rows.by_part[part].path))


def _listed(data: pa.Table, ids: Ids) -> npt.NDArray[np.bool_]:
    found = np.zeros(data.num_rows, dtype=np.bool_)
    for name in (SOURCE_PREFIX + "uid", "sample_id", "url_id"):
        if name in data.column_names and data.schema.field(name).type == pa.string():
            found |= ids.contain(data[name].combine_chunks())
    return found


def _holds(data: pa.Table, where: str) -> npt.NDArray[np.bool_]:
    """Truth of the condition for each row; DuckDB sees these rows and nothing else of this machine."""
    with duckdb.connect(config=dict(_LOCKED)) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        connection.register("candidates", _visible(data))
        try:
            query = f"SELECT row, coalesce(CAST((\n{where}\n) AS BOOLEAN), false) AS holds FROM candidates"
            found: pa.Table = connection.sql(query).to_arrow_table()
        except (duckdb.Error, pa.ArrowException) as error:
            raise SettingsError(_explained(str(error), where, data)) from error
    found = found.sort_by("row") if found.column_names == ["row", "holds"] else found
    if "holds" not in found.column_names or not found["row"].equals(data["row"]):
        raise SettingsError(f"prefilter={where!r} is not one condition on one row")
    return np.asarray(found["holds"].to_numpy())


def _bare_names(data: pa.Table) -> Mapping[str, str]:
    """Bare name -> `source.<name>` of each input column."""
    return {name.removeprefix(SOURCE_PREFIX): name for name in data.column_names if name.startswith(SOURCE_PREFIX)}


def _visible(data: pa.Table) -> pa.Table:
    """The rows, with input columns under their bare names where these are free, and all of them as the struct `source`."""
    bare = _bare_names(data)
    taken = {name.lower() for name in data.column_names}
    seen = data
    for name, column in bare.items():
        if name.lower() not in taken:
            seen = seen.append_column(name, data[column])
    if bare and "source" not in taken:
        columns = [data[column].combine_chunks() for column in bare.values()]
        seen = seen.append_column("source", pa.StructArray.from_arrays(columns, names=list(bare)))
    return seen


def _explained(message: str, where: str, data: pa.Table) -> str:
    """DuckDB's error as one line, with the nearest column where one was not found."""
    line = message.split("\n", 1)[0].strip()
    unknown = re.search(r'(?:column|find key) "([^"]+)"', line)
    hint = _nearest_any_case(unknown.group(1), [*_bare_names(data), *data.column_names]) if unknown else ""
    return f"prefilter={where!r}: {line}{hint}"


def _nearest_any_case(name: str, known: list[str]) -> str:
    return nearest(name, known) or nearest(name.upper(), known) or nearest(name.lower(), known)
