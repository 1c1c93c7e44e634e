"""The CLIP adapter embeds as open_clip itself does, and held-out tars come back as items."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from curate.errors import InputError, UsageError
from curate.evaluate.clip import clip_predict
from curate.evaluate.items import items
from curate.evaluate.settings import EvaluateSettings
from curate.evaluate.suite import evaluate
from curate.media.tar import TarWriter

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"layers": 1, "width": 32, "patch_size": 16, "image_size": 32, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    path.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    return path


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(seed)).save(stream, "PNG")
    return stream.getvalue()


def held_out(path: Path, count: int = 6) -> Path:
    with TarWriter(path) as tar:
        for n in range(count):
            tar.add(f"{n:04d}.png", png(n))
            tar.add(f"{n:04d}.txt", f"picture {n}\nanother line {n}\n\n".encode())
            tar.add(f"{n:04d}.cls.txt", b"even" if n % 2 == 0 else b"odd\n")
    return path


def test_embeddings_are_unit_and_those_of_open_clip(folder: Path) -> None:
    predict = clip_predict(folder, device="cpu")
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["one", "two words"])
    with torch.no_grad():
        batch = torch.stack([transform(Image.fromarray(picture(seed))) for seed in (1, 2)])
        images, texts = network.encode_image(batch, normalize=True), network.encode_text(tokens, normalize=True)
    assert predict.encode_images([picture(1), picture(2)]) == pytest.approx(images.numpy(), abs=2e-3)
    assert predict.encode_texts(["one", "two words"]) == pytest.approx(texts.numpy(), abs=1e-5)
    assert len(predict.weights_sha256) == 64


def test_a_folder_without_a_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        clip_predict(tmp_path)


def test_items_carry_pixels_captions_and_class(tmp_path: Path) -> None:
    found = list(items(held_out(tmp_path / "a.tar", 3)))
    assert [item.captions for item in found] == [(f"picture {n}", f"another line {n}") for n in range(3)]
    assert [item.label for item in found] == ["even", "odd", "even"]
    assert all(np.array_equal(item.pixels, picture(n)) for n, item in enumerate(found))


def test_a_model_is_measured_on_a_folder_of_tars(folder: Path, tmp_path: Path) -> None:
    held_out(tmp_path / "0.tar", 6)
    found = evaluate(clip_predict(folder, device="cpu"), items(tmp_path), EvaluateSettings(batch_size=4))
    assert {m.task for m in found} == {"held_out/zero_shot", "held_out/retrieval"}
    assert all(0 <= m.low <= m.value <= m.high <= 1 for m in found)
    assert {m.samples for m in found if m.metric.startswith("text_to_image")} == {12}


def test_damage_is_named_and_not_passed_over(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "bad.tar") as tar:
        tar.add("7.jpg", b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(InputError, match=r"bad\.tar: the image of sample '7'"):
        list(items(tmp_path / "bad.tar"))
    with pytest.raises(InputError, match="neither a .tar"):
        list(items(tmp_path / "nothing"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(held_out(tmp_path / "whole.tar").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut\.tar"):
        list(items(cut))
