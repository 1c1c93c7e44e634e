"""Recall at k against a plain loop, with several captions per image and images that share a caption."""

from __future__ import annotations

import numpy as np
import pytest

from curate.evaluate.base import Embeddings
from curate.evaluate.retrieval import Captions, distinct, measure, ranks


def unit(random: np.random.Generator, n: int, dim: int = 8) -> Embeddings:
    vectors = random.normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_recall(scores: np.ndarray, right: list[set[int]], k: int) -> float:
    """Recall at k by sorting, one query at a time."""
    hits = [bool(set(np.argsort(-line)[:k].tolist()) & answers) for line, answers in zip(scores, right, strict=True)]
    return float(np.mean(hits))


@pytest.fixture
def related() -> tuple[Embeddings, Embeddings, Captions]:
    random = np.random.default_rng(0)
    captions = [[f"{n}", f"{n} again", "shared"] if n % 10 == 0 else [f"{n}"] for n in range(60)]
    pairs = distinct(captions)
    images = unit(random, 60)
    texts = unit(random, len(pairs.texts))
    texts[pairs.text] = 0.6 * images[pairs.image] + 0.4 * texts[pairs.text]
    return images, texts / np.linalg.norm(texts, axis=1, keepdims=True), pairs


def test_equal_texts_become_one_with_several_right_images() -> None:
    pairs = distinct([["a cat", "a pet"], ["a dog", "a pet"], []])
    assert pairs.texts == ("a cat", "a pet", "a dog")
    assert list(zip(pairs.image.tolist(), pairs.text.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1), (1, 2)]


def test_recalls_equal_those_of_a_plain_loop(related: tuple[Embeddings, Embeddings, Captions]) -> None:
    images, texts, pairs = related
    found = {m.metric: m for m in measure("test", images, texts, pairs, (1, 5, 10))}
    scores = images @ texts.T
    of_image: list[set[int]] = [set() for _ in images]
    of_text: list[set[int]] = [set() for _ in texts]
    for image, text in zip(pairs.image.tolist(), pairs.text.tolist(), strict=True):
        of_image[image].add(text)
        of_text[text].add(image)
    for k in (1, 5, 10):
        assert found[f"image_to_text_recall_at_{k}"].value == plain_recall(scores, of_image, k)
        assert found[f"text_to_image_recall_at_{k}"].value == plain_recall(scores.T, of_text, k)
    assert found["image_to_text_recall_at_1"].samples == 60
    assert found["text_to_image_recall_at_1"].samples == len(pairs.texts)


def test_chunks_do_not_change_the_answer(related: tuple[Embeddings, Embeddings, Captions]) -> None:
    images, texts, pairs = related
    whole = ranks(images, texts, pairs.image, pairs.text)
    assert np.array_equal(ranks(images, texts, pairs.image, pairs.text, chunk=7), whole)


def test_a_model_that_says_the_same_of_everything_finds_nothing() -> None:
    same = np.tile(np.eye(1, 4, dtype=np.float32), (50, 1))
    pairs = distinct([[str(n)] for n in range(50)])
    assert all(m.value == 0 for m in measure("test", same, same, pairs, (1, 10)))


def test_images_without_caption_are_candidates_only() -> None:
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.6, 0, 0.8]], np.float32)
    found = {m.metric: m for m in measure("test", images, texts, distinct([["first"], [], []]), (1, 2))}
    assert found["text_to_image_recall_at_1"].value == 0  # image 2, which nobody described, lies nearer
    assert found["text_to_image_recall_at_2"].value == 1
    assert found["image_to_text_recall_at_1"].samples == 1
