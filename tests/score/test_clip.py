"""Loading and encoding: equal to open_clip's own transform and towers, and one clear line where that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from curate.errors import UsageError
from curate.score.clip import column_name, load_clip, torch_threads
from curate.score.clip_scorer import ClipScorer
from curate.score.preprocess import Normaliser, Preprocess
from curate.score.scorer import Batch
from tests.score.pools import SIZE, noise, tiny_clip

SIZES = [(48, 64), (64, 48), (32, 32), (31, 33), (7, 5), (1, 1), (200, 333), (33, 500), (256, 341)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_preprocessing_is_that_of_open_clip(resize_mode: str, interpolation: str, size: int | tuple[int, int]) -> None:
    config = open_clip.transform.PreprocessCfg(size=size, resize_mode=resize_mode, interpolation=interpolation, fill_color=90)
    theirs = open_clip.transform.image_transform_v2(config, is_train=False)
    ours = Preprocess.of(vars(config))
    mean, std = np.array(config.mean), np.array(config.std)
    for height, width in SIZES:
        if resize_mode == "longest" and min(height, width) == 1:
            continue
        pixels = noise(height, height, width)
        expected = theirs(Image.fromarray(pixels)).permute(1, 2, 0).numpy() * std + mean
        off = np.abs(ours(pixels) - expected * 255)
        assert off.max() < 2.5, f"{height} x {width}"  # of 255: the passes round in another order
        assert off.mean() < 0.5, f"{height} x {width}"


def test_embeddings_are_those_of_open_clip(folder: Path) -> None:
    clip = load_clip("tiny", str(folder))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures = [noise(seed, *size) for seed, size in enumerate(SIZES)]
    texts = ["a photo of a cat", "", "zwei Hunde", "word " * 200]
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([transform(Image.fromarray(one)) for one in pictures]), normalize=True).numpy()
        captions = model.encode_text(tokenizer(texts), normalize=True).numpy()
    ours = clip.encode_images([clip.preprocess(one) for one in pictures])
    assert 1 - (ours * images).sum(axis=1).min() < 1e-3
    np.testing.assert_allclose(clip.encode_texts(texts), captions, atol=1e-5)
    assert clip.dim == 16
    assert clip.preprocess.size == (SIZE, SIZE)


def test_captions_go_through_the_tower_at_their_own_length(folder: Path) -> None:
    clip, lengths = load_clip("tiny", str(folder)), []
    clip.model.transformer.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    texts = ["a cat", "", "two dogs on a street"]
    short = clip.encode_texts(texts)
    with torch.no_grad():
        whole = clip.model.encode_text(clip.tokenize(texts), normalize=True).numpy()
    assert lengths == [7, 16]  # the longest has five words, and begin and end
    np.testing.assert_allclose(short, whole, atol=1e-6)
    assert clip.model.positional_embedding.shape[0] == 16


def test_towers_that_see_all_positions_get_all(folder: Path) -> None:
    clip, lengths = load_clip("tiny", str(folder)), []
    clip.model.text_pool_type = "last"
    clip.model.transformer.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    clip.encode_texts(["a cat"])
    assert lengths == [16]


def test_numbers_are_those_of_the_formula_batch_after_batch() -> None:
    normalise = Normaliser((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    for count, size in ((3, 8), (2, 8), (4, 6)):
        pictures = np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        expected = (pictures / 255 - np.array(normalise.mean)) / np.array(normalise.std)
        np.testing.assert_allclose(normalise(pictures), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_a_needle_costs_no_more_than_a_square(folder: Path) -> None:
    clip = load_clip("tiny", str(folder))
    assert clip.preprocess(np.zeros((20_000, 1, 3), np.uint8)).shape == (SIZE, SIZE, 3)
    assert clip.preprocess(np.zeros((1, 60_000, 3), np.uint8)).shape == (SIZE, SIZE, 3)


def test_bf16_stays_near_fp32(folder: Path) -> None:
    picture = [noise(3, SIZE, SIZE)]
    exact, reduced = (load_clip("tiny", str(folder), "cpu", precision) for precision in ("fp32", "bf16"))
    for first, second in (
        (exact.encode_images(picture), reduced.encode_images(picture)),
        (exact.encode_texts(["a cat"]), reduced.encode_texts(["a cat"])),
    ):
        assert not np.array_equal(first, second)
        assert float((first * second).sum()) > 0.999
    kinds = {name: weight.dtype for name, weight in reduced.model.named_parameters()}
    assert kinds["visual.transformer.resblocks.0.attn.in_proj_weight"] == torch.bfloat16
    assert kinds["visual.transformer.resblocks.0.ln_1.weight"] == torch.float32


@pytest.mark.parametrize(
    ("model", "weights", "column"),
    [
        ("ViT-B-32", "openai", "clip_vit_b_32_openai"),
        ("ViT-B-32-256", "datacomp_s34b_b86k", "clip_vit_b_32_256_datacomp_s34b_b86k"),
        ("Demo CLIP", "/data/My Models/first.try/", "clip_demo_clip_first_try"),
        ("hub", "hf-hub:apple/DFN2B-CLIP", "clip_hub_apple_dfn2b_clip"),
        ("m", "local-dir:here", "clip_m_here"),
    ],
)
def test_column_names(model: str, weights: str, column: str) -> None:
    assert column_name(model, weights) == column


def _without(folder: Path, target: Path, name: str) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if file.name != name:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_wrong_folders_are_named_in_one_line(folder: Path, tmp_path: Path) -> None:
    other = tiny_clip(tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    (other / "open_clip_config.json").write_text(json.dumps(config))
    cut = _without(folder, tmp_path / "cut", "")
    (cut / "open_clip_model.safetensors").write_bytes(b"short")
    cases = {
        str(tmp_path / "nowhere"): "no folder",
        str(_without(folder, tmp_path / "a", "open_clip_config.json")): "open_clip_config.json",
        str(_without(folder, tmp_path / "b", "open_clip_model.safetensors")): "open_clip_model.safetensors",
        str(other): "cannot load",
        str(cut): "cannot load",
    }
    for weights, words in cases.items():
        with pytest.raises(UsageError, match=words) as caught:
            load_clip("tiny", weights)
        assert "\n" not in str(caught.value)


def test_unknown_names_offer_the_nearest(folder: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ViT-B-32'"):
        load_clip("VIT-B-32", "openai")
    with pytest.raises(UsageError, match="did you mean 'openai'"):
        load_clip("ViT-B-32", "opnai")
    with pytest.raises(UsageError, match="no device"):
        load_clip("tiny", str(folder), device="tpu9")


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from curate.score.clip import load_clip; from curate.errors import UsageError\n"
        "for weights in ('openai', 'hf-hub:some/model'):\n"
        "    try: load_clip('ViT-B-32', weights)\n"
        "    except UsageError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "cannot download the weights openai of ViT-B-32",
        "cannot download the weights hf-hub:some/model",
    ]
    assert all("set weights=/that/folder" in line for line in lines)


def test_a_model_that_gives_nan_gives_null(folder: Path, tmp_path: Path) -> None:
    broken = _without(folder, tmp_path / "broken", "")
    weights = load_file(broken / "open_clip_model.safetensors")
    weights["text_projection"].fill_(float("nan"))
    save_file(weights, broken / "open_clip_model.safetensors")
    rows = pa.table({"sample_id": ["0" * 32], "caption": ["a cat"]})
    with ClipScorer(model="tiny", weights=str(broken)).open() as opened:
        scored = opened.score(Batch(rows, np.array([0]), [noise(1, SIZE, SIZE)]))
    assert scored.columns.column(0).to_pylist() == [None]
    assert scored.embeddings is not None
    assert not scored.embeddings.any()


def test_threads_are_fixed_while_open_and_given_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys; import curate.score.phase, curate.score.reserve; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.gpu
def test_a_gpu_says_how_long_it_computed(folder: Path) -> None:
    clip = load_clip("tiny", str(folder), "cuda")
    assert 0 < clip.clock.spent() < 60 and clip.clock.spent() == 0
