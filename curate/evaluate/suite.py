"""All tasks that a held-out split allows, in one pass over its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from curate.errors import UsageError
from curate.evaluate import retrieval, zeroshot
from curate.evaluate.base import Embeddings, Measurement, Pixels, Predict, image_embeddings, text_embeddings
from curate.evaluate.settings import EvaluateSettings
from curate.evaluate.statistics import Values
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
    found: list[Measurement] = []
    if (classified := _classified(predict, facts.labels, settings)) is not None:
        described, numbers, labelled = classified
        found += zeroshot.measure(f"{settings.name}/zero_shot", images[labelled], described, numbers, settings.seed)
    if (captioned := _captioned(predict, facts.captions, settings)) is not None:
        found += retrieval.measure(f"{settings.name}/retrieval", images, *captioned, settings.top, settings.seed)
    progress.finish("evaluate")
    if not found:
        raise UsageError(_nothing(len(images)))
    return found


def by_item(predict: Predict, items: Iterable[Item], settings: EvaluateSettings) -> dict[str, Values]:
    """The figures of `evaluate` as what each item adds to them: `task/metric` -> numbers (items,) whose mean is the figure.

    An item that a task leaves out adds 0, and the others so much more. Raises UsageError as `evaluate` does.
    """
    facts = _Facts()
    images = image_embeddings(predict, facts.pixels(items, Silent()), settings.batch_size)
    found: dict[str, Values] = {}
    if (classified := _classified(predict, facts.labels, settings)) is not None:
        described, numbers, labelled = classified
        for name, values in zeroshot.by_item(images[labelled], described, numbers).items():
            found[f"zero_shot/{name}"] = np.zeros(len(images))
            found[f"zero_shot/{name}"][labelled] = values * len(images) / len(labelled)
    if (captioned := _captioned(predict, facts.captions, settings)) is not None:
        found |= {f"retrieval/{name}": values for name, values in retrieval.by_item(images, *captioned, settings.top).items()}
    if not found:
        raise UsageError(_nothing(len(images)))
    return found


def _nothing(samples: int) -> str:
    return f"nothing to evaluate among {samples} samples: give captions, or labels of at least two classes"


def _classified(
    predict: Predict, labels: Sequence[str | None], settings: EvaluateSettings
) -> tuple[Embeddings, NDArray[np.int64], list[int]] | None:
    """Embedded classes, the class of each labelled item, and which items those are; None where there are no two classes."""
    labelled = [index for index, label in enumerate(labels) if label is not None]
    classes = sorted({label for label in labels if label is not None})
    if len(classes) < 2:
        return None
    number = {name: at for at, name in enumerate(classes)}
    numbers = np.array([number[str(labels[index])] for index in labelled], np.int64)
    return zeroshot.class_embeddings(predict, classes, settings.templates), numbers, labelled


def _captioned(
    predict: Predict, captions: Sequence[Sequence[str]], settings: EvaluateSettings
) -> tuple[Embeddings, retrieval.Captions] | None:
    """Embedded distinct captions and whose they are; None where there are no two."""
    pairs = retrieval.distinct(captions)
    if len(pairs.texts) < 2:
        return None
    return text_embeddings(predict, pairs.texts, settings.batch_size), pairs
