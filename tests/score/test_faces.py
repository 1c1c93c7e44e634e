"""Faces: drawn ones are found where they are by OpenCV's cascade, and a network of YuNet's form is run as OpenCV's zoo has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageDraw, ImageFilter

from curate.errors import InputError
from curate.score.faces import FaceScorer
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase


def face(size: int) -> np.ndarray:
    """A drawn face from the front, size x size, on green."""
    image = Image.new("RGB", (240, 240), (90, 120, 90))
    pen = ImageDraw.Draw(image)
    pen.ellipse((50, 20, 190, 225), fill=(60, 40, 30))
    pen.ellipse((58, 35, 182, 225), fill=(224, 188, 160))
    pen.ellipse((60, 15, 180, 75), fill=(60, 40, 30))
    for left in (75, 128):
        pen.ellipse((left, 95, left + 37, 115), fill=(150, 110, 90))
        pen.ellipse((left + 5, 98, left + 32, 114), fill=(245, 245, 245))
        pen.ellipse((left + 12, 98, left + 26, 114), fill=(40, 30, 25))
        pen.line((left, 87, left + 38, 86), fill=(70, 45, 35), width=5)
    pen.polygon([(120, 105), (110, 150), (130, 150)], fill=(236, 202, 176))
    pen.ellipse((108, 142, 132, 156), fill=(190, 145, 120))
    pen.ellipse((95, 172, 145, 192), fill=(170, 80, 80))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(2)).resize((size, size), Image.Resampling.LANCZOS))


def two_faces() -> np.ndarray:
    pixels = np.full((300, 500, 3), (90, 120, 90), np.uint8)
    pixels[30:270, 20:260], pixels[100:220, 340:460] = face(240), face(120)
    return pixels


def observed(scorer: FaceScorer, pixels: np.ndarray) -> list[list[float]]:
    with scorer.open() as opened:
        assert opened.observe is not None
        found: list[list[float]] = opened.observe(pixels)
        return found


def test_drawn_faces_are_found_where_they_are() -> None:
    found = np.array(observed(FaceScorer(), two_faces())) * (500, 300, 500, 300)
    for box, (left, top, side) in zip(found, ((20, 30, 240), (340, 100, 120)), strict=True):
        eyes_and_mouth = np.array([75, 95, 165, 192]) * side / 240 + (left, top, left, top)
        assert (box[:2] < eyes_and_mouth[:2]).all() and (box[2:] > eyes_and_mouth[2:]).all()
        assert (box[2:] - box[:2] < side).all()
    assert observed(FaceScorer(), noise(1, 300, 400)) == []


def test_values_stand_at_their_rows(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("two", jpeg(two_faces(), 95)), Row("gone", None), Row("none", jpeg(noise(1)))]])
    phase = ScorePhase(ScoreSettings(name="faces", image=None, caption=None, faces=FaceScorer(), decode_threads=2))
    phase.record(pool)
    run_phase(pool, phase, phase.schema)
    lines = pool.snapshot("scores_faces").read().to_pylist()
    assert [line["face_count"] for line in lines] == [2, None, 0]
    assert [len(line["face_boxes"]) if line["face_boxes"] is not None else None for line in lines] == [2, None, 0]


def yunet(folder: Path) -> Path:
    """A network with YuNet's twelve outputs that takes every white square of 32 pixels for a face."""
    nodes, outputs, constants = [], [], []

    def constant(name: str, values: np.ndarray, kind: int) -> str:
        constants.append(helper.make_tensor(name, kind, values.shape, values.ravel()))
        return name

    for stride in (8, 16, 32):
        nodes.append(helper.make_node("AveragePool", ["input"], [f"mean_{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2))
        for name, channels, weight, bias in (
            ("cls", 1, (stride == 32) / 765, 0.0), ("obj", 1, 0.0, 1.0), ("bbox", 4, 0.0, 0.0), ("kps", 10, 0.0, 0.0),
        ):  # fmt: skip
            key = f"{name}_{stride}"
            kernel = constant(f"w_{key}", np.full((channels, 3, 1, 1), weight, np.float32), TensorProto.FLOAT)
            offset = constant(f"b_{key}", np.full(channels, bias, np.float32), TensorProto.FLOAT)
            shape = constant(f"s_{key}", np.array([1, -1, channels], np.int64), TensorProto.INT64)
            nodes.append(helper.make_node("Conv", [f"mean_{stride}", kernel, offset], [f"c_{key}"], kernel_shape=[1, 1]))
            nodes.append(helper.make_node("Transpose", [f"c_{key}"], [f"t_{key}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"t_{key}", shape], [key]))
            outputs.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, [1, (320 // stride) ** 2, channels]))
    seen = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 320, 320])
    graph = helper.make_graph(nodes, "yunet", [seen], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "yunet.onnx")
    return folder / "yunet.onnx"


def test_a_network_of_yunets_form_is_run_at_the_size_of_each_picture(tmp_path: Path) -> None:
    scorer = FaceScorer(path=str(yunet(tmp_path)))
    assert scorer.identity() != FaceScorer().identity()
    for width, height in ((320, 320), (640, 320)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[96:128, 64:96] = 255
        # YuNet's boxes have the cell's corner for their middle where the network says nothing else
        assert (np.array(observed(scorer, pixels)) * (width, height, width, height)).tolist() == [[48, 80, 80, 112]]
    assert observed(scorer, np.zeros((5, 9, 3), np.uint8)) == []


@pytest.mark.parametrize("name", ["broken.onnx", "broken.xml", "missing.onnx"])
def test_what_is_no_detector_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "broken.xml").write_text("<nothing/>")
    scorer = FaceScorer(path=str(tmp_path / name))
    with pytest.raises(InputError) as said:
        scorer.identity()
        observed(scorer, noise(1))
    assert "\n" not in str(said.value) and name in str(said.value)
