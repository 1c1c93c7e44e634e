"""A surveyed list is cut into parts: rows are spooled by part, numbered, checked for duplicates, written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.plan.readers import read_blocks
from curate.plan.rows import RowMaker, rows_schema
from curate.plan.settings import InputSettings, PlanSettings
from curate.plan.spool import Spool, spool
from curate.plan.survey import Survey
from curate.progress import Progress
from curate.stage import PartFile
from curate.store import Pool

TASK = "plan: rows"

FEWEST_ROWS = 250  # of a part, for which starting and committing it is worth while


def part_count(rows: int, fraction: float, settings: PlanSettings) -> int:
    """How many parts a list of so many rows is cut into; a short list too gives every worker something to do."""
    rows = round(rows * fraction)
    wanted = max(1, -(-rows // settings.rows_per_part), min(settings.min_parts, rows // FEWEST_ROWS))
    return wanted if settings.max_parts is None else min(wanted, settings.max_parts)


@contextmanager
def spooled(
    pool: Pool, found: Survey, input_settings: InputSettings, settings: PlanSettings, parts: int, progress: Progress
) -> Iterator[Spool]:
    """All rows of the list by part, on disk; gone when the block ends."""
    with spool(pool, rows_schema(found), range(parts), settings.spool_bytes) as buckets:
        progress.start(TASK, found.rows, "rows")
        for file in found.files:
            maker = RowMaker(found, file, found.names.of_file(), parts, input_settings.sample)
            for block in read_blocks(file, input_settings):
                buckets.add(*maker.make(block))
                progress.advance(TASK, block.rows, file=file.name)
        buckets.flush()
        progress.finish(TASK)
        yield buckets


def numbered(rows: pa.Table) -> pa.Table:
    """A part's rows with their numbers; the later ones of equal URL and caption are marked as duplicates."""
    first = np.zeros(rows.num_rows, dtype=np.bool_)
    first[np.unique(rows["sample_id"].to_numpy().astype("S32"), return_index=True)[1]] = True
    rows = refused(rows, pa.array(~first), "duplicate_row")
    return rows.append_column("row", pa.array(np.arange(rows.num_rows, dtype=np.int32)))


def refused(rows: pa.Table, mask: pa.Array, reason: str) -> pa.Table:
    """Rows with the reason where the mask is true, unless they have one already."""
    reasons = pc.if_else(pc.and_(mask, pc.is_null(rows["reason"])), pa.scalar(reason), rows["reason"])
    return rows.set_column(rows.schema.get_field_index("reason"), "reason", reasons)


def write_parts(pool: Pool, parts: Iterable[tuple[int, pa.Table]], basis: str, schema: pa.Schema) -> tuple[list[PartFile], Counter[str]]:
    """Publishes the parts that have rows, ready to be committed; and counts rows by reason, or `ok`."""
    written: list[PartFile] = []
    reasons: Counter[str] = Counter()
    for part, rows in parts:
        if rows.num_rows:
            written.append(pool.write_part("rows", part, rows, basis, schema))
            reasons.update({pair["values"] or "ok": pair["counts"] for pair in pc.value_counts(rows["reason"]).to_pylist()})
    return written, reasons
