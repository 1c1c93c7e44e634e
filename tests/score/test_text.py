"""Text in pictures: drawn words are found where they were drawn, pictures without words have none, and PP-OCR's own detector agrees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageDraw, ImageFont

from curate.demo.scenes import scenes
from curate.errors import IdentityError, InputError, MissingExtra
from curate.media.image import decode_rgb
from curate.score.onnx import OnnxModel, load, packaged
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.score.text import TextScorer, regions
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase

WIDTH, HEIGHT = 512, 384
LINES = (("winter sale", 40, "black", 20), ("museum of coffee", 22, "white", 160), ("original price", 54, "navy", 270))
Box = tuple[int, int, int, int]


def lettered(seed: int) -> tuple[np.ndarray, list[Box]]:
    """A smooth picture with three lines of text, and the box around the ink of each."""
    image = Image.fromarray(noise(seed, HEIGHT, WIDTH) // 2 + 64)
    pen, boxes = ImageDraw.Draw(image), []
    for (words, size, colour, top), left in zip(LINES, np.random.default_rng(seed).integers(8, 120, 3).tolist(), strict=True):
        font = ImageFont.load_default(size)
        pen.text((left, top), words, font=font, fill=colour)
        boxes.append(tuple(int(side) for side in pen.textbbox((left, top), words, font=font)))
    return np.asarray(image), boxes


def painted(boxes: list[Box], margin: int = 0) -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in boxes:
        found[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = True
    return found


def in_pixels(boxes: list[list[float]]) -> list[Box]:
    return [(round(b[0] * WIDTH), round(b[1] * HEIGHT), round(b[2] * WIDTH), round(b[3] * HEIGHT)) for b in boxes]


@pytest.fixture(scope="module")
def detector() -> OnnxModel:
    return load(TextScorer().file())


@pytest.fixture(scope="module")
def reader() -> OnnxModel:
    return load(packaged("rapidocr", "*rec*.onnx"))


def test_drawn_words_are_found_where_they_are(detector: OnnxModel, reader: OnnxModel) -> None:
    for seed in range(4):
        pixels, boxes = lettered(seed)
        text = TextScorer().find(detector, reader, pixels)
        found, drawn = painted(in_pixels(text.boxes)), painted(boxes)
        covered = [found[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
        assert min(covered) > 0.95, (seed, covered)  # recall, line by line
        assert (found & painted(boxes, 16)).sum() >= 0.99 * found.sum()  # precision: nothing far from ink
        assert len(text.boxes) == 3
        assert drawn.mean() < text.area < 2 * drawn.mean()


def test_pictures_without_words_have_none(detector: OnnxModel, reader: OnnxModel) -> None:
    pictures = [noise(1, HEIGHT, WIDTH)] + [decode_rgb(row.image_bytes()) for row in scenes(40, 3)[:3]]
    assert [TextScorer().find(detector, reader, pixels).area for pixels in pictures] == [0.0] * 4
    # which is the reader's doing: single shapes look like letters to a detector
    assert max(TextScorer().find(detector, None, pixels).area for pixels in pictures[:2]) > 0.1


@pytest.mark.long
def test_the_packages_own_detector_says_the_same(detector: OnnxModel) -> None:
    from rapidocr import RapidOCR

    side = round(736 * WIDTH / HEIGHT)  # theirs brings the shorter side to 736
    pixels, _ = lettered(5)
    theirs = RapidOCR(params={"Global.log_level": "error"})(pixels[:, :, ::-1].copy(), use_det=True, use_cls=False, use_rec=False)
    wanted = sorted([*corners.min(axis=0), *corners.max(axis=0)] for corners in np.asarray(theirs.boxes, float))
    found = sorted(in_pixels(TextScorer(side=side).find(detector, None, pixels).boxes))
    np.testing.assert_allclose(found, wanted, atol=2)


@pytest.mark.parametrize("turned", [20, -70])
def test_lines_are_read_at_any_angle(detector: OnnxModel, reader: OnnxModel, turned: int) -> None:
    image = Image.new("RGB", (WIDTH, WIDTH), "white")
    ImageDraw.Draw(image).text((120, 230), "winter sale", font=ImageFont.load_default(48), fill="black")
    text = TextScorer().find(detector, reader, np.asarray(image.rotate(turned, fillcolor="white")))
    assert len(text.boxes) == 1 and 0.03 < text.area < 0.12  # of the region, not of the box around it


def test_a_region_grows_by_the_papers_distance_at_any_angle() -> None:
    middle, size, angle = (200.0, 150.0), (160.0, 40.0), 30.0
    probability = np.full((320, 416), 0.1, np.float32)
    cv2.fillPoly(probability, [np.rint(cv2.boxPoints((middle, size, angle))).astype(np.int32)], 0.9)
    probability[5:9, 5:60] = 0.4  # above the pixels' threshold, below the region's
    by = 1.6 * 160 * 40 / (2 * (160 + 40))
    (found,) = regions(probability, 0.3, 0.5, 1.6)
    wanted = cv2.boxPoints((middle, (160 + 2 * by, 40 + 2 * by), angle))
    corners = cv2.boxPoints(found)
    np.testing.assert_allclose(corners[np.lexsort(corners.T)], wanted[np.lexsort(wanted.T)], atol=4)


def test_values_stand_at_their_rows(tmp_path: Path) -> None:
    words = jpeg(lettered(1)[0], 95)
    pool = make_pool(tmp_path / "pool", [[Row("words", words), Row("gone", None), Row("none", jpeg(noise(1))), Row("again", words)]])
    phase = ScorePhase(ScoreSettings(name="text", image=None, caption=None, text=TextScorer()))
    (counters,) = run_phase(pool, phase, phase.schema)
    lines = pool.snapshot("scores_text").read().to_pylist()
    assert [line["text_count"] for line in lines] == [3, None, 0, 3]
    assert [line["text_boxes"] is None for line in lines] == [False, True, False, False]
    assert lines[0]["text_boxes"] == lines[3]["text_boxes"] and all(len(box) == 4 for box in lines[0]["text_boxes"])
    assert lines[2]["text_area"] == 0.0 and counters["model_calls"] == 2
    known = pool.read_document("model_text_area")
    assert known is not None and known["weights_sha256"] == TextScorer().provenance()[0].sha256


def other_model(folder: Path, output: list[int]) -> Path:
    """An ONNX file that takes a picture and gives zeros of one shape."""
    zeros = helper.make_tensor("zeros", TensorProto.FLOAT, output, np.zeros(output, np.float32).ravel())
    nodes = [helper.make_node("Constant", [], ["constant"], value=zeros), helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)]
    nodes.append(helper.make_node("Add", ["constant", "sum"], ["y"]))
    seen = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, None, None])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "other", [seen], [given])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "other.onnx")
    return folder / "other.onnx"


def test_another_file_under_the_same_columns_is_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("a", jpeg(noise(1)))]])
    ScorePhase(ScoreSettings(image=None, text=TextScorer())).record(pool)
    other = TextScorer(path=str(other_model(tmp_path, [1, 2])))
    assert other.identity() != TextScorer().identity() != TextScorer(side=640).identity()
    with pytest.raises(IdentityError, match="column text_area of this pool was computed with other weights"):
        ScorePhase(ScoreSettings(image=None, text=other)).record(pool)


def test_what_is_no_detector_is_one_line(tmp_path: Path) -> None:
    other = str(other_model(tmp_path, [1, 2]))
    for scorer, words in ((TextScorer(path=other), "no detector of text regions"), (TextScorer(reader=other), "no recogniser")):
        with pytest.raises(InputError, match=words), scorer.open() as opened:
            opened.observe(lettered(1)[0])  # type: ignore[misc]
    (tmp_path / "broken.onnx").write_bytes(b"no model at all")
    for path, words in (("broken.onnx", "cannot be loaded as ONNX"), ("missing.onnx", "cannot be read")):
        with pytest.raises(InputError, match=words) as said:
            found = TextScorer(path=str(tmp_path / path))
            found.identity()
            load(found.file())
        assert "\n" not in str(said.value)


def test_what_is_not_installed_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"curate-vlm\[onnx\]"):
        packaged("no-such-distribution-of-curate", "*.onnx")
    with pytest.raises(InputError, match="brings no"):
        packaged("numpy", "*.onnx")
