"""Measurements become rows of table `evaluations` in a real pool; one pass over the items measures every task."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from curate.errors import UsageError
from curate.evaluate.base import Embeddings, Measurement, Pixels, batches, to_table
from curate.evaluate.matching import measure, pair_scores
from curate.evaluate.settings import EvaluateSettings
from curate.evaluate.suite import Item, by_item, evaluate
from curate.settings import build, compose, names
from curate.store import Pool
from tests.evaluate.test_zeroshot import Letters


def test_measurements_are_rows_that_the_store_takes(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    found = [Measurement("scenes/retrieval", "image_to_text_recall_at_1", 0.25, 0.2, 0.3, 400), Measurement("t", "m", 1, 1, 1, 2)]
    table = to_table(found, "tiny", "ab12", {"seed": 3})
    file = pool.write_part("evaluations", 0, table, "basis")
    assert file.rows == 2
    assert table.column("row").to_pylist() == [0, 1]
    assert json.loads(table.column("settings")[0].as_py()) == {"seed": 3}
    assert table.column("value").to_pylist() == [0.25, 1.0]


def test_batches_hold_every_item_once_in_order() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


def test_matching_separates_right_from_swapped() -> None:
    images = np.eye(6, dtype=np.float32)
    texts = images[[0, 1, 2, 4, 5, 3]]
    scores = pair_scores(images, texts)
    assert scores.tolist() == [1, 1, 1, 0, 0, 0]
    assert measure("test", scores, [False] * 3 + [True] * 3).value == 1


def item(colour: int, label: str | None = None, captions: tuple[str, ...] = ()) -> Item:
    pixels = np.zeros((5, 4, 3), np.uint8)
    pixels[:, :, colour] = 200
    return Item(pixels, captions, label)


def test_one_pass_measures_all_that_the_items_allow() -> None:
    items = [item(0, "a", ("aa",)), item(1, "b", ("bb",)), item(2, "c", ("cc", "c")), item(2, None, ("aab",))]
    settings = EvaluateSettings(name="letters", batch_size=2, templates=("{}",))
    found = {(m.task, m.metric): m for m in evaluate(Letters(), iter(items), settings)}
    assert found["letters/zero_shot", "top_1_accuracy"].value == 1
    assert found["letters/zero_shot", "top_1_accuracy"].samples == 3
    assert found["letters/retrieval", "image_to_text_recall_at_1"].value == 0.75


class Chance:
    """Knows nothing: each picture and each text has an embedding of its own, drawn by what it holds."""

    def encode_images(self, images: Sequence[Pixels]) -> Embeddings:
        return self.encode_texts([str(image.tolist()) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        drawn = np.array([np.random.default_rng(zlib.crc32(text.encode())).normal(size=6) for text in texts], np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_what_each_item_adds_is_each_figure_in_the_mean() -> None:
    random, settings = np.random.default_rng(2), EvaluateSettings(name="any", templates=("{}",))
    captions = [(f"{n}", "shared") if n % 7 == 0 else () if n % 5 == 0 else (f"{n}",) for n in range(40)]
    labels = [None if n % 6 == 0 else f"class {n % 9 % 7}" for n in range(40)]
    items = [Item(random.integers(0, 255, (2, 2, 3), np.uint8), *said) for said in zip(captions, labels, strict=True)]
    found = by_item(Chance(), items, settings)
    figures = {f"{m.task}/{m.metric}".removeprefix("any/"): m.value for m in evaluate(Chance(), items, settings)}
    assert set(found) == set(figures) and len(found) == 9
    assert all(len(found[name]) == 40 and found[name].mean() == pytest.approx(value) for name, value in figures.items())
    assert 0 < figures["zero_shot/mean_per_class_recall"] != figures["zero_shot/top_1_accuracy"]
    assert all(found["retrieval/image_to_text_recall_at_10"][n] == 0 for n in range(40) if not captions[n])
    with pytest.raises(UsageError, match="nothing to evaluate"):
        by_item(Chance(), [item(0), item(1, "b")], settings)


def test_items_without_labels_have_no_zero_shot() -> None:
    found = evaluate(Letters(), [item(0, None, ("aa",)), item(1, None, ("bb",))], EvaluateSettings())
    assert {m.task for m in found} == {"held_out/retrieval"}


def test_items_that_allow_nothing_are_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to evaluate among 2"):
        evaluate(Letters(), [item(0), item(1, "b")], EvaluateSettings())


@pytest.mark.parametrize("name", names("evaluate"))
def test_shipped_settings_are_valid(name: str) -> None:
    settings = build(EvaluateSettings, compose("ingest", [f"evaluate={name}"])["evaluate"])
    assert settings.name == name
