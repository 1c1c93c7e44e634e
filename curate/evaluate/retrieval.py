"""Image-text retrieval: recall at k in both directions.

Images and texts may be related many to many: an image with five captions is found when any of them is among the first
k, and images that share one caption are each a right answer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.evaluate.base import Embeddings, Measurement
from curate.evaluate.statistics import Values, mean_interval

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Captions:
    """Distinct texts, and which belong to which image: pair i says that text `text[i]` describes image `image[i]`."""

    texts: tuple[str, ...]
    image: Index
    text: Index


def distinct(captions: Sequence[Sequence[str]]) -> Captions:
    """Captions of each image as pairs with distinct texts; equal texts are one text with several right images."""
    numbers: dict[str, int] = {}
    pairs = sorted({(image, numbers.setdefault(text, len(numbers))) for image, texts in enumerate(captions) for text in texts})
    image, text = np.array(pairs, np.int64).reshape(-1, 2).T
    return Captions(tuple(numbers), image, text)


def ranks(queries: Embeddings, candidates: Embeddings, query: Index, candidate: Index, chunk: int = 1024) -> Index:
    """For each query, how many wrong candidates score at least as high as its best right one; 0 is a hit at 1.

    `query[i]`, `candidate[i]` are the right pairs. A query without any has as many wrong ones as there are candidates.
    Memory is `chunk` × candidates scores.
    """
    order = np.argsort(query, kind="stable")
    query, candidate = query[order], candidate[order]
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), chunk):
        stop = min(start + chunk, len(queries))
        low, high = np.searchsorted(query, [start, stop])
        scores = queries[start:stop] @ candidates.T
        found[start:stop] = _chunk_ranks(scores, query[low:high] - start, candidate[low:high])
    return found


def _chunk_ranks(scores: Embeddings, rows: Index, columns: Index) -> Index:
    best = np.full(len(scores), -np.inf, np.float32)
    np.maximum.at(best, rows, scores[rows, columns])
    scores[rows, columns] = np.nan  # neither right answers nor NaN compare as wrong ones
    return np.asarray((scores >= best[:, None]).sum(axis=1), np.int64)


def measure(
    task: str, images: Embeddings, texts: Embeddings, captions: Captions, top: Sequence[int] = (1, 5, 10), seed: int = 0
) -> list[Measurement]:
    """Recall at each k of `top`, image to text and text to image; images without a caption are only candidates."""
    to_text, to_image = _positions(images, texts, captions)
    return [
        _recall(task, f"{direction}_recall_at_{k}", position[used] < k, seed)
        for direction, position, used in (
            ("image_to_text", to_text, np.unique(captions.image)),
            ("text_to_image", to_image, np.unique(captions.text)),
        )
        for k in top
    ]


def by_item(images: Embeddings, texts: Embeddings, captions: Captions, top: Sequence[int] = (1, 5, 10)) -> dict[str, Values]:
    """What each image adds to each recall of `measure`: numbers (images,) whose mean is the recall.

    A caption that several images share is divided among them.
    """
    to_text, to_image = _positions(images, texts, captions)
    owners, sharing = np.bincount(captions.image, minlength=len(images)), np.bincount(captions.text, minlength=len(texts))
    described, used = (owners > 0).sum(), (sharing > 0).sum()
    found = {}
    for k in top:
        found[f"image_to_text_recall_at_{k}"] = (to_text < k) * (owners > 0) * len(images) / described
        shares = (to_image[captions.text] < k) / sharing[captions.text]
        found[f"text_to_image_recall_at_{k}"] = np.bincount(captions.image, shares, len(images)) * len(images) / used
    return found


def _positions(images: Embeddings, texts: Embeddings, captions: Captions) -> tuple[Index, Index]:
    """Ranks of each image's best text and of each text's best image."""
    return ranks(images, texts, captions.image, captions.text), ranks(texts, images, captions.text, captions.image)


def _recall(task: str, metric: str, hits: NDArray[np.bool_], seed: int) -> Measurement:
    interval = mean_interval(hits, seed)
    return Measurement(task, metric, interval.value, interval.low, interval.high, len(hits))
