"""What every evaluation takes (a predict function) and gives (measurements that become rows of table `evaluations`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.score.reading import batches

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB, any size."""

Embeddings = NDArray[np.float32]
"""(n, dim), each row of length 1."""


class Predict(Protocol):
    """A model as evaluations see it."""

    def encode_images(self, images: Sequence[Pixels]) -> Embeddings:
        """One unit vector per image."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """One unit vector per text, in the same space."""


@dataclass(frozen=True)
class Measurement:
    """One figure with its 95 % interval, and how many samples it stands on."""

    task: str
    metric: str
    value: float
    low: float
    high: float
    samples: int


def to_table(measurements: Sequence[Measurement], model: str, weights_sha256: str, settings: Mapping[str, object]) -> pa.Table:
    """Rows for table `evaluations`, ready for `Pool.write_part`, which adds `part` and `basis`."""
    text = json.dumps(settings, sort_keys=True)
    said = {"model": model, "weights_sha256": weights_sha256, "settings": text}
    rows = [asdict(measurement) | said | {"row": row} for row, measurement in enumerate(measurements)]
    return pa.Table.from_pylist(rows, schema=_COLUMNS)


_COLUMNS = pa.schema(
    {
        "row": pa.int32(), "model": pa.string(), "weights_sha256": pa.string(), "task": pa.string(), "metric": pa.string(),
        "value": pa.float64(), "low": pa.float64(), "high": pa.float64(), "samples": pa.int64(), "settings": pa.string(),
    }
)  # fmt: skip


def image_embeddings(predict: Predict, images: Iterable[Pixels], batch_size: int = 256) -> Embeddings:
    """Embeddings of a stream of images; only one batch of pixels is held at a time."""
    return _stacked([predict.encode_images(batch) for batch in batches(images, batch_size)])


def text_embeddings(predict: Predict, texts: Iterable[str], batch_size: int = 256) -> Embeddings:
    """Embeddings of a stream of texts."""
    return _stacked([predict.encode_texts(batch) for batch in batches(texts, batch_size)])


def _stacked(parts: list[Embeddings]) -> Embeddings:
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
