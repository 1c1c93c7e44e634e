"""What is derived from embeddings: settings that name columns, and a function from one part's vectors to their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.derive.vectors import Vectors

Values = list[NDArray[Any]]
"""A column each, one value for each vector."""

Derived = Callable[[Vectors], Values]

COLUMN = r"^[a-z][a-z0-9_]*$"
"""What a column may be called."""


class Measure(Protocol):
    """One kind of number about a row's embeddings; see `curate.score.scorer.Scorer`, which is its twin for images."""

    @property
    def adds(self) -> pa.Schema:
        """Columns that it gives, in the order of the values."""

    def identity(self) -> str:
        """Fingerprint of class, version, settings and whatever else the values depend on."""

    def open(self) -> Derived:
        """On the worker: reads what all parts are compared with."""


def scores(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """Columns of (name, type, comment)."""
    return pa.schema([pa.field(name, kind, metadata={"class": "scores", "comment": comment}) for name, kind, comment in columns])


def spread(values: NDArray[Any], place: NDArray[np.int64], rows: int, kind: pa.DataType) -> pa.Array:
    """A column of the part: the values at their places, null elsewhere."""
    full, absent = np.zeros(rows, values.dtype), np.ones(rows, np.bool_)
    full[place], absent[place] = values, False
    return pa.array(full, kind, mask=absent)
