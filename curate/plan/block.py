"""A block: consecutive records of one input file, as a reader hands them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Block:
    """Records `first_row`, `first_row + 1`, … of a file.

    `columns` are the file's own, one value per record; records that could not be read are true in `broken` and null in
    every column. `is_text` says that the values carry no types of their own (txt, csv, tsv). `layout` names the
    headerless layout that was recognised (`cc3m`, `cc12m`).
    """

    first_row: int
    columns: Mapping[str, pa.Array]
    broken: npt.NDArray[np.bool_]
    is_text: bool = False
    layout: str | None = None

    @property
    def rows(self) -> int:
        """How many records there are."""
        return len(self.broken)


def broken_block(first_row: int, rows: int) -> Block:
    """Records of which nothing is known but that they are there."""
    return Block(first_row, {}, np.ones(rows, dtype=np.bool_))


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Column names of a file, repeated ones numbered: a, a become a, a_2."""
    found: dict[str, None] = {}
    for name in names:
        number, fresh = 1, name
        while fresh in found:
            number += 1
            fresh = f"{name}_{number}"
        found[fresh] = None
    return tuple(found)
