"""T-MARS: boxes are painted over with the colour around them, and the same model scores what is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate import schema as schemas
from curate.errors import SchemaError, UsageError
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.media.fill import fill
from curate.media.image import decode_rgb
from curate.score.clip import load_clip
from curate.score.clip_scorer import ClipScorer, Mask
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase, tiny_clip

Boxes = list[list[float]] | None
BOXES: list[Boxes] = [[[0.25, 0.25, 0.5, 0.5], [0.4, 0.4, 0.75, 0.6]], [], None, [[0.0, 0.0, 1.0, 1.0]], [[0.9, 0.9, 1.2, 1.3]], None]


def painted_by_hand(pixels: np.ndarray, boxes: list[list[float]]) -> np.ndarray:
    """The same rule, pixel by pixel."""
    height, width = pixels.shape[:2]
    corners = []
    for left, top, right, bottom in boxes:
        x0, x1, y0, y1 = left * width, min(right, 1) * width, top * height, min(bottom, 1) * height
        corners.append((int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))))
    covered = {(x, y) for x0, y0, x1, y1 in corners for x in range(x0, x1) for y in range(y0, y1)}
    result = pixels.copy()
    for x0, y0, x1, y1 in corners:
        ring = max(2, round(min(x1 - x0, y1 - y0) / 4))
        near = [
            pixels[y, x].astype(float)
            for y in range(max(0, y0 - ring), min(height, y1 + ring))
            for x in range(max(0, x0 - ring), min(width, x1 + ring))
            if (x, y) not in covered
        ]
        everywhere = [pixels[y, x].astype(float) for y in range(height) for x in range(width) if (x, y) not in covered]
        result[y0:y1, x0:x1] = np.rint(np.mean(near or everywhere or list(pixels.reshape(-1, 3).astype(float)), axis=0))
    return result


def with_boxes(folder: Path, boxes: list[Boxes] = BOXES) -> Pool:
    """A pool whose text somebody else has found."""
    rows = [Row(f"caption {at}", jpeg(noise(at))) for at in range(5)] + [Row("gone", None)]
    pool = make_pool(folder / "pool", [rows])
    schema = schemas.table("scores")
    schema = pa.schema([schema.field(name) for name in ("part", "row", "reason", "text_boxes", "basis")])
    with claim(pool, {"scores_text": schema}) as run:
        table = pa.table({"row": pa.array(range(6), pa.int32()), "text_boxes": pa.array(boxes, schema.field("text_boxes").type)})
        run.commit("scores_text", [pool.write_part("scores_text", 0, table, "test", schema)])
    return pool


def test_a_box_takes_the_colour_around_it() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = (200, 10, 10), (10, 10, 200)
    pixels[10:20, 10:20] = 255  # the text
    filled = fill(pixels, [[10 / 60, 10 / 40, 20 / 60, 20 / 40]])
    assert (filled[:, :30] == (200, 10, 10)).all() and (filled[:, 30:] == (10, 10, 200)).all()
    assert (fill(pixels, []) == pixels).all()


@pytest.mark.parametrize("boxes", [boxes for boxes in BOXES if boxes])
def test_it_is_the_rule_applied_pixel_by_pixel(boxes: list[list[float]]) -> None:
    assert (fill(noise(3), boxes) == painted_by_hand(noise(3), boxes)).all()


def test_masked_scores_are_those_of_pictures_masked_by_hand(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "tiny")
    pool = with_boxes(tmp_path)
    plain = ScorePhase(ScoreSettings(clip=ClipScorer(model="tiny", weights=str(folder))))
    masked = ScorePhase(
        ScoreSettings(name="masked", image=None, caption=None, clip=ClipScorer(model="tiny", weights=str(folder), mask=Mask(of="text")))
    )
    for phase in (plain, masked):
        phase.record(pool)
        run_phase(pool, phase, phase.schema)
    found = pool.snapshot("scores_masked").read()["masked_clip_tiny"].to_pylist()
    unmasked = pool.snapshot("scores_base").read()["clip_tiny"].to_pylist()
    clip = load_clip("tiny", str(folder))
    for row, boxes in enumerate(BOXES):
        if boxes is None:
            assert found[row] is None
            continue
        picture = painted_by_hand(decode_rgb(jpeg(noise(row))), boxes)
        image, text = clip.encode_images([clip.preprocess(picture)]), clip.encode_texts([f"caption {row}"])
        assert found[row] == pytest.approx(float((image * text).sum()), abs=1e-5)
        assert boxes or found[row] == pytest.approx(unmasked[row], abs=1e-5)
    assert abs(found[0] - unmasked[0]) > 1e-4
    assert pool.read_document("current") == {"clip_score": "clip_tiny"}

    with claim(pool, {}) as run:
        subset = filter_pool(pool, run, FilterSettings.model_validate({"policy": "tmars", "mode": "quantile"})).subset
    keep = pool.snapshot("decisions_tmars").read()["keep"].to_pylist()
    order = sorted((row for row, score in enumerate(found) if score is not None), key=lambda row: found[row], reverse=True)
    assert subset.kept == 3  # half of five rows with an image, rounded up
    assert {row for row, kept in enumerate(keep) if kept} == set(order[: subset.kept])


def test_what_has_no_boxes_is_refused(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "tiny")
    pool = make_pool(tmp_path / "pool", [[Row("a", jpeg(noise(1)))]])
    clip = ClipScorer(model="tiny", weights=str(folder), mask=Mask(of="text"))
    with pytest.raises(UsageError, match="scores_text has no boxes in a column text_boxes: find text first"):
        ScorePhase(ScoreSettings(name="masked", clip=clip)).record(pool)
    pixels = with_boxes(tmp_path / "pixels", [[[10.0, 10.0, 30.0, 20.0]], *BOXES[1:]])
    phase = ScorePhase(ScoreSettings(name="masked", image=None, caption=None, clip=clip))
    with pytest.raises(SchemaError, match="text_boxes of scores_text: a box is four fractions"):
        run_phase(pixels, phase, phase.schema)
    with pytest.raises(ValueError, match="give this one another name"):
        ScoreSettings(name="text", clip=clip)
    assert clip.identity() != ClipScorer(model="tiny", weights=str(folder)).identity()
