"""Zero-shot classification: templates, ranks, and the mean over classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from curate.errors import UsageError
from curate.evaluate.base import Embeddings, Pixels
from curate.evaluate.zeroshot import class_embeddings, mean_per_class, measure, ranks


class Letters:
    """A predict function that can be computed by hand: a text is its counts of a, b and c."""

    def encode_images(self, images: Sequence[Pixels]) -> Embeddings:
        return self._unit(np.array([image.reshape(-1, 3).sum(axis=0) for image in images], np.float32))

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return self._unit(np.array([[text.count(letter) + 1e-3 for letter in "abc"] for text in texts], np.float32))

    def _unit(self, vectors: Embeddings) -> Embeddings:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_a_class_is_the_normalised_mean_over_templates() -> None:
    found = class_embeddings(Letters(), ["a", "bb"], ["{}", "c {}"])
    single = Letters().encode_texts(["a", "c a", "bb", "c bb"]).reshape(2, 2, 3).mean(axis=1)
    assert found == pytest.approx(single / np.linalg.norm(single, axis=1, keepdims=True))
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1])


def test_a_template_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(UsageError, match="has no {}"):
        class_embeddings(Letters(), ["a"], ["a photo"])


def test_ranks_count_wrong_classes_at_least_as_near() -> None:
    classes = np.eye(4, dtype=np.float32)
    images = np.array([[0.9, 0.3, 0.2, 0.1], [0.9, 0.3, 0.2, 0.1], [0.5, 0.5, 0.5, 0.5]], np.float32)
    assert ranks(images, classes, np.array([0, 2, 1])).tolist() == [0, 2, 3]


def test_measurements_agree_with_counting() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 300)
    classes = np.eye(8, dtype=np.float32)
    images = classes[labels] + random.normal(0, 0.6, (300, 8)).astype(np.float32)
    found = {m.metric: m for m in measure("test", images, classes, labels)}
    order = np.argsort(-images, axis=1)
    assert found["top_1_accuracy"].value == (order[:, 0] == labels).mean()
    assert found["top_5_accuracy"].value == (order[:, :5] == labels[:, None]).any(axis=1).mean()
    assert found["top_1_accuracy"].low < found["top_1_accuracy"].value < found["top_1_accuracy"].high


def test_five_classes_have_no_top_5() -> None:
    classes = np.eye(5, dtype=np.float32)
    assert "top_5_accuracy" not in {m.metric for m in measure("test", classes, classes, np.arange(5))}


def test_the_mean_per_class_gives_a_rare_class_its_full_weight() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    found = mean_per_class(labels == 0, labels)
    assert found.value == 0.5
    assert (found.low, found.high) == (0.5, 0.5)
