"""All tasks that a held-out split allows, in one pass over its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from curate.errors import UsageError
from curate.evaluate import retrieval, zeroshot
from curate.evaluate.base import Embeddings, Measurement, Pixels, Predict, image_embeddings, text_embeddings
from curate.evaluate.settings import EvaluateSettings
from curate.progress import Progress, Silent


@dataclass(frozen=True)
class Item:
    """One held-out image: decoded pixels, the captions that describe it, and its class where it has one."""

    pixels: Pixels
    captions: Sequence[str] = ()
    label: str | None = None


@dataclass
class _Facts:
    """What is remembered of the items while their pixels pass by."""

    captions: list[Sequence[str]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)

    def pixels(self, items: Iterable[Item], progress: Progress) -> Iterator[Pixels]:
        for item in items:
            self.captions.append(item.captions)
            self.labels.append(item.label)
            progress.advance("evaluate")
            yield item.pixels


def evaluate(
    predict: Predict, items: Iterable[Item], settings: EvaluateSettings, progress: Progress | None = None, total: int | None = None
) -> list[Measurement]:
    """Zero-shot classification over the items with a label, retrieval over those with captions.

    Raises UsageError when there is no item, or neither labels of two classes nor captions.
    """
    progress, facts = progress or Silent(), _Facts()
    progress.start("evaluate", total, "samples")
    images = image_embeddings(predict, facts.pixels(items, progress), settings.batch_size)
    found = [*_zero_shot(predict, images, facts.labels, settings), *_retrieval(predict, images, facts.captions, settings)]
    progress.finish("evaluate")
    if not found:
        raise UsageError(f"nothing to evaluate among {len(images)} samples: give captions, or labels of at least two classes")
    return found


def _zero_shot(predict: Predict, images: Embeddings, labels: Sequence[str | None], settings: EvaluateSettings) -> list[Measurement]:
    labelled = [index for index, label in enumerate(labels) if label is not None]
    classes = sorted({label for label in labels if label is not None})
    if len(classes) < 2:
        return []
    number = {name: at for at, name in enumerate(classes)}
    numbers = np.array([number[str(labels[index])] for index in labelled], np.int64)
    described = zeroshot.class_embeddings(predict, classes, settings.templates)
    return zeroshot.measure(f"{settings.name}/zero_shot", images[labelled], described, numbers, settings.seed)


def _retrieval(predict: Predict, images: Embeddings, captions: Sequence[Sequence[str]], settings: EvaluateSettings) -> list[Measurement]:
    pairs = retrieval.distinct(captions)
    if len(pairs.texts) < 2:
        return []
    texts = text_embeddings(predict, pairs.texts, settings.batch_size)
    return retrieval.measure(f"{settings.name}/retrieval", images, texts, pairs, settings.top, settings.seed)
