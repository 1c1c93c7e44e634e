"""Zero-shot classification: the class whose described name lies nearest to the image (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.errors import UsageError
from curate.evaluate.base import Embeddings, Measurement, Predict, text_embeddings
from curate.evaluate.statistics import Interval, Values, bootstrap, mean_interval

TOP = 5


def class_embeddings(predict: Predict, classes: Sequence[str], templates: Sequence[str]) -> Embeddings:
    """One unit vector per class: the mean over templates of the embedded sentences. `{}` in a template is the name."""
    for template in templates:
        if "{}" not in template:
            raise UsageError(f"evaluate.templates: {template!r} has no {{}} for the class name")
    sentences = [template.replace("{}", name) for name in classes for template in templates]
    embedded = text_embeddings(predict, sentences).reshape(len(classes), len(templates), -1)
    mean = embedded.mean(axis=1)
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12), np.float32)


def ranks(images: Embeddings, classes: Embeddings, labels: NDArray[np.int64], chunk: int = 4096) -> NDArray[np.int64]:
    """For each image, how many wrong classes score at least as high as its own; 0 is a hit."""
    found = np.empty(len(images), np.int64)
    for start in range(0, len(images), chunk):
        scores = images[start : start + chunk] @ classes.T
        own = labels[start : start + chunk]
        right = np.take_along_axis(scores, own[:, None], axis=1)
        found[start : start + chunk] = (scores >= right).sum(axis=1) - 1
    return found


def measure(task: str, images: Embeddings, classes: Embeddings, labels: NDArray[np.int64], seed: int = 0) -> list[Measurement]:
    """Top-1, top-5 (with more than five classes) and mean recall per class, each with its interval."""
    position = ranks(images, classes, labels)
    hits = position == 0
    found = {"top_1_accuracy": mean_interval(hits, seed)}
    if len(classes) > TOP:
        found[f"top_{TOP}_accuracy"] = mean_interval(position < TOP, seed)
    found["mean_per_class_recall"] = mean_per_class(hits, labels, seed)
    return [Measurement(task, name, i.value, i.low, i.high, len(images)) for name, i in found.items()]


def by_item(images: Embeddings, classes: Embeddings, labels: NDArray[np.int64]) -> dict[str, Values]:
    """What each image adds to each figure of `measure`: numbers (images,) whose mean is the figure."""
    position = ranks(images, classes, labels)
    found = {"top_1_accuracy": (position == 0).astype(np.float64)}
    if len(classes) > TOP:
        found[f"top_{TOP}_accuracy"] = (position < TOP).astype(np.float64)
    counts = np.bincount(labels, minlength=len(classes))
    found["mean_per_class_recall"] = (position == 0) * len(labels) / (counts[labels] * (counts > 0).sum())
    return found


def mean_per_class(hits: NDArray[np.bool_], labels: NDArray[np.int64], seed: int = 0) -> Interval:
    """Mean over the classes that occur of the share of hits in each, so that frequent classes do not dominate."""
    _, dense = np.unique(labels, return_inverse=True)
    members = np.eye(int(dense.max()) + 1)[dense] if len(dense) else np.zeros((0, 0))
    right = members * hits[:, None]

    def recall(counts: Values) -> Values:
        drawn = counts @ members
        share = np.divide(counts @ right, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)
        return np.asarray(np.nanmean(share, axis=1), np.float64)

    return bootstrap(recall, len(labels), seed)
