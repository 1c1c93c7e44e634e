"""Models are built from configs, and what is saved loads in open_clip as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch

from curate.errors import UsageError
from curate.settings import build as settings_of
from curate.settings import compose, names
from curate.train import model
from curate.train.settings import Architecture, TrainSettings
from tests.train.pictures import TINY

CNN = {**TINY, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 32}}


@pytest.mark.parametrize("config", [TINY, CNN], ids=["vit", "cnn"])
def test_a_saved_folder_loads_in_open_clip_and_embeds_alike(config: dict[str, object], tmp_path: Path) -> None:
    clip = model.build(Architecture.model_validate(config), seed=3)
    clip.network.eval()
    model.save(clip, tmp_path / "folder")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'folder'}")
    theirs.eval()
    images = torch.rand(3, 3, clip.image_side, clip.image_side)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'folder'}")(["a red circle", "two", "x " * 60])
    assert torch.equal(tokens, clip.tokenizer(["a red circle", "two", "x " * 60]))
    with torch.no_grad():
        assert torch.equal(theirs.encode_image(images), clip.network.encode_image(images))
        assert torch.equal(theirs.encode_text(tokens), clip.network.encode_text(tokens))
    assert tuple(transform.transforms[-1].mean) == clip.mean


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (model.build(Architecture.model_validate(TINY), seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_a_folder_gives_initial_weights_or_the_whole_model(tmp_path: Path) -> None:
    clip = model.build(Architecture.model_validate(TINY), seed=5)
    model.save(clip, tmp_path)
    started = model.build(Architecture.model_validate(TINY), init=str(tmp_path), seed=6)
    continued = model.build(f"local-dir:{tmp_path}")
    for found in (started, continued):
        assert all(torch.equal(value, found.network.state_dict()[name]) for name, value in clip.network.state_dict().items())
    assert continued.config == clip.config


def test_every_shipped_training_file_is_valid_and_builds() -> None:
    for name in names("train"):
        settings = settings_of(TrainSettings, compose("ingest", [f"train={name}"])["train"])
        if isinstance(settings.model, Architecture):
            assert model.build(settings.model).image_side == 64
        else:
            assert settings.model in open_clip.list_models()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda folder: model.build("ViT-B-33"), "no model 'ViT-B-33'; did you mean 'ViT-B-32'"),
        (lambda folder: model.build(f"local-dir:{folder}"), "is no open_clip model folder"),
        (lambda folder: model.build("ViT-B-32", init="openay"), "no such folder, and no weights of this model; give one of openai"),
        (lambda folder: model.build(Architecture.model_validate({**TINY, "vision_cfg": {"depth": 3}})), "does not take this config"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(call, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_or_a_cut_file_are_refused(tmp_path: Path) -> None:
    model.save(model.build(Architecture.model_validate({**TINY, "embed_dim": 8})), tmp_path)
    with pytest.raises(UsageError, match="do not load"):
        model.build(Architecture.model_validate(TINY), init=str(tmp_path))
    weights = tmp_path / model.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="do not load"):
        model.load(tmp_path)
    assert json.loads((tmp_path / model.CONFIG_FILE).read_text())["model_cfg"]["embed_dim"] == 8
