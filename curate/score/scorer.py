"""What a scorer is: settings that name the columns it adds, and the two steps in which it computes them.

A scorer declares what a `curate.stage.Stage` declares (version, needs, adds, identity, open). Only the waist differs:
pixels never travel through Arrow. `observe` sees each decoded image once, on a decoding thread, and keeps what it needs
of it; `score` then turns rows and observations into columns, batch after batch, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.score.weights import Model

Pixels = NDArray[np.uint8]
"""Height x width x 3, red first."""

ROW_COLUMNS = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
    ]
)
"""What a scorer may need of a row."""


@dataclass(frozen=True)
class Batch:
    """Rows with an image, and what this scorer observed of the images.

    `image` gives for each row its place in `observed`; there stands None where the stored image could not be decoded.
    """

    rows: pa.Table
    image: NDArray[np.int64]
    observed: Sequence[Any]


@dataclass(frozen=True)
class Scored:
    """Added columns, one value per row of the batch; embeddings (rows, 2, dim) float32 with image first, text second."""

    columns: pa.RecordBatch
    embeddings: NDArray[np.float32] | None = None
    model_calls: int = 0
    gpu_seconds: float = 0.0


@dataclass(frozen=True)
class Opened:
    """A scorer at work on one worker; `observe` is None when it needs no pixels; `masked` sees them with boxes painted over."""

    observe: Callable[[Pixels], Any] | None
    score: Callable[[Batch], Scored]
    masked: bool = False


class Scorer(Protocol):
    """One kind of number about image and caption; frozen settings."""

    @property
    def version(self) -> int:
        """Raised by hand when the same settings would give other values."""

    @property
    def needs(self) -> pa.Schema:
        """Columns of `ROW_COLUMNS` that it reads."""

    @property
    def adds(self) -> pa.Schema:
        """Columns that it returns; null where it has no value, never NaN."""

    def identity(self) -> str:
        """Fingerprint of class, version, settings and weights."""

    def open(self) -> AbstractContextManager[Opened]:
        """Builds models once on the worker."""


@runtime_checkable
class Weighted(Protocol):
    """A scorer whose values are those of a file of weights: a pool knows one file by a column's name."""

    def provenance(self) -> tuple[Model, ...]:
        """The column and the file's digest, of each file; finds the files, and reads them once."""


def without_nan(values: NDArray[np.floating[Any]], kind: pa.DataType) -> pa.Array:
    """Arrow column with null for every value that is not finite."""
    return pa.array(values, mask=~np.isfinite(values), type=kind)
