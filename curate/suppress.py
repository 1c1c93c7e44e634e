"""The suppression list: what was taken down, so that nothing that runs later brings it back.

Table `suppressed` grows with every takedown and never shrinks. Planning and adding mark its rows `withdrawn`, the fetcher
neither requests them nor keeps a body whose hash is on the list, whatever URL it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema import SOURCE_PREFIX
from curate.store import Pool

TABLE = "suppressed"
REASON = "withdrawn"
TEXT_COLUMNS = ("caption", "captions", "label", "regions")
"""Columns of `rows` that say what is in the image; those of the input list, `source.<name>`, go with them."""


@dataclass(frozen=True)
class Suppression:
    """What a pool must not hold; each set holds lower-case hex digits."""

    sample_ids: frozenset[str] = frozenset()
    url_ids: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sample_ids or self.url_ids or self.hashes)

    def holds(self, sample_id: str | None, url_id: str | None) -> bool:
        """Whether the row must not be requested."""
        return sample_id in self.sample_ids or url_id in self.url_ids

    def rows(self, sample_ids: Sequence[str | None], url_ids: Sequence[str | None]) -> NDArray[np.bool_]:
        """Which rows must not be requested, shape (n,)."""
        return np.array([self.holds(*ids) for ids in zip(sample_ids, url_ids, strict=True)], np.bool_)

    def holds_bytes(self, *sha256: object) -> bool:
        """Whether one of these hashes (of the body as received, of the image as stored) is barred."""
        return any(value in self.hashes for value in sha256)

    def mark(self, rows: pa.Table) -> pa.Table:
        """Planned rows with the barred ones marked `withdrawn` and without their texts; ids and URL stay.

        For everything that brings rows into a pool. A row that was refused for another reason keeps that one.
        """
        if not self:
            return rows
        barred = self.rows(rows["sample_id"].to_pylist(), rows["url_id"].to_pylist())
        return withheld(rows, barred) if barred.any() else rows


def withheld(rows: pa.Table, barred: NDArray[np.bool_], erase_text: bool = True) -> pa.Table:
    """Lines of table `rows` with reason `withdrawn` where `barred`, and without what their texts say of the image."""
    mask = pa.array(barred)
    reason = pc.if_else(pc.and_(mask, pc.is_null(rows["reason"])), pa.scalar(REASON, pa.string()), rows["reason"])
    rows = rows.set_column(rows.schema.get_field_index("reason"), rows.schema.field("reason"), reason)
    return emptied(rows, [name for name in rows.column_names if is_text(name)], barred) if erase_text else rows


def is_text(column: str) -> bool:
    """Whether a column of `rows` tells what is in the image, or what the input list said besides the URL."""
    return column in TEXT_COLUMNS or column.startswith(SOURCE_PREFIX)


def emptied(table: pa.Table, columns: Sequence[str], where: NDArray[np.bool_]) -> pa.Table:
    """The table with null in these columns of these rows."""
    places = pa.array(np.arange(table.num_rows), mask=where)
    for name in columns:
        values = table[name].combine_chunks()
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values.take(places))
    return table


def read_suppression(pool: Pool) -> Suppression:
    """The pool's list as it stands; about 200 bytes of memory an entry. Empty when nothing was ever taken down."""
    snapshot = pool.snapshot(TABLE)
    if not snapshot.files:
        return Suppression()
    found = snapshot.read(["sample_id", "url_id", "sha256", "image_sha256"])
    sets = {name: frozenset(found[name].drop_null().to_pylist()) for name in found.column_names}
    return Suppression(sets["sample_id"], sets["url_id"], sets["sha256"] | sets["image_sha256"])
