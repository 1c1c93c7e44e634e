"""What scaled decoding does to a filter: nothing that anyone would notice.

A CLIP trained here scores the same scenes, stored once with `decode: fast` and once `faithful`, from JPEGs of 640 to 1024
pixels, so that every one of them is decoded at a half or a quarter. A cut at the same quantile must keep the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from curate.demo.render import encode_jpeg
from curate.demo.scenes import scene_rows
from curate.demo.settings import ScenesSettings
from curate.evaluate.base import image_embeddings, text_embeddings
from curate.evaluate.clip import clip_predict
from curate.evaluate.matching import pair_scores
from curate.media.image import ImageSettings, decode_rgb, prepare
from curate.train.loop import train
from tests.train.pictures import selection
from tests.train.test_filter_effect import drawn, settings

QUANTILES = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Scores:
    """Of the same rows, by how their images were decoded."""

    fast: NDArray[np.float32]
    faithful: NDArray[np.float32]

    def overlap(self, kept: float) -> float:
        """Jaccard index of the best `kept` of the rows by either score."""
        count = int(kept * len(self.fast))
        chosen = [set(np.argsort(-one, kind="stable")[:count].tolist()) for one in (self.fast, self.faithful)]
        return len(chosen[0] & chosen[1]) / len(chosen[0] | chosen[1])


def scored(folder: Path, train_rows: int, samples: int, pool_rows: int) -> Scores:
    """Trains on small pictures, as the model looks at 64 pixels; scores large ones."""
    model = train(selection(folder, drawn(train_rows, 0, "train")), settings(samples, 0), folder / "model")
    said = ScenesSettings(rows=pool_rows, seed=7, min_side_pixels=640, max_side_pixels=1024)
    rows = [row for row in scene_rows(said) if row.kind not in ("dead", "opted_out", "too_small")]
    files = [encode_jpeg(row.pixels(), 85) for row in rows]
    predict = clip_predict(model.path)
    texts = text_embeddings(predict, [row.caption for row in rows])
    found = {}
    for decode in ("fast", "faithful"):
        how = ImageSettings.model_validate({"decode": decode})
        pictures = (decode_rgb(prepare(data, how).data) for data in files)
        found[decode] = pair_scores(image_embeddings(predict, pictures), texts)
    return Scores(**found)


def test_scores_hardly_move(tmp_path: Path) -> None:
    found = scored(tmp_path, train_rows=300, samples=1024, pool_rows=100)
    assert not np.array_equal(found.fast, found.faithful)
    assert np.abs(found.fast - found.faithful).mean() <= 0.01 * found.faithful.std()
    assert min(found.overlap(kept) for kept in QUANTILES) >= 0.94  # one row of 27, 46 or 64 may change places


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_cut_keeps_the_same_rows(tmp_path: Path) -> None:
    found = scored(tmp_path, train_rows=3000, samples=11_520, pool_rows=3000)
    overlaps = {kept: found.overlap(kept) for kept in QUANTILES}
    print(overlaps, np.abs(found.fast - found.faithful).mean() / found.faithful.std())
    assert min(overlaps.values()) >= 0.99
