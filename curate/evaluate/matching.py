"""How well the cosine of image and caption tells right captions from wrong ones, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.evaluate.base import Embeddings, Measurement
from curate.evaluate.statistics import roc_auc_interval


def pair_scores(images: Embeddings, texts: Embeddings) -> NDArray[np.float32]:
    """Cosine of row i of one and row i of the other."""
    return np.asarray(np.einsum("nd,nd->n", images, texts), np.float32)


def measure(task: str, scores: NDArray[np.float32], mismatched: Sequence[bool] | NDArray[np.bool_], seed: int = 0) -> Measurement:
    """AUC of "a right pair scores above a mismatched one"; 0.5 is chance."""
    interval = roc_auc_interval(scores, ~np.asarray(mismatched, bool), seed)
    return Measurement(task, "mismatched_caption_auc", interval.value, interval.low, interval.high, len(scores))
