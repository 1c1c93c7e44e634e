"""open_clip models: built from a config, saved to and loaded from folders that open_clip itself loads as `local-dir:`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from curate.errors import UsageError
from curate.schema import nearest
from curate.train.settings import Architecture

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
LOCAL = "local-dir:"

Tokenizer = Callable[[list[str]], torch.Tensor]
"""Texts → token ids (n, context_length) int64."""


@dataclass
class Clip:
    """A model with what is needed to feed it: the side of its square images, their normalisation, its tokenizer."""

    network: torch.nn.Module
    config: dict[str, Any]  # open_clip's model_cfg
    tokenizer: Tokenizer
    image_side: int
    mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD


def build(model: str | Architecture, init: str | None = None, seed: int = 0) -> Clip:
    """A model of the given architecture with random weights drawn from `seed`, or with the weights that `init` names.

    Raises UsageError for an unknown name, a config open_clip does not take, or weights that do not fit.
    """
    config = _config(model)
    clip = Clip(_network(config, seed), config, _tokenizer(model, config), _side(config))
    if isinstance(model, str) and model.startswith(LOCAL) and init is None:
        init = model.removeprefix(LOCAL)
    if init is not None:
        _initialise(clip.network, model, init)
    return clip


def save(clip: Clip, folder: Path) -> None:
    """Writes config and weights into `folder`, so that `open_clip.create_model("local-dir:FOLDER")` loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": list(clip.mean), "std": list(clip.std), "interpolation": "bicubic", "resize_mode": "shortest"}
    text = json.dumps({"model_cfg": clip.config, "preprocess_cfg": preprocess}, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in clip.network.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load(folder: Path) -> Clip:
    """The model that `save` wrote."""
    return build(f"{LOCAL}{folder}")


def image_side(model: str | Architecture) -> int:
    """Side in pixels of the square images that the model takes."""
    return _side(_config(model))


def _config(model: str | Architecture) -> dict[str, Any]:
    if isinstance(model, Architecture):
        return model.model_dump(mode="json")
    if model.startswith(LOCAL):
        return _folder_config(Path(model.removeprefix(LOCAL)))
    found = open_clip.get_model_config(model)
    if found is None:
        raise UsageError(f"train.model: open_clip has no model {model!r}{nearest(model, open_clip.list_models())}")
    return dict(found)


def _folder_config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / CONFIG_FILE).read_text())["model_cfg"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} is no open_clip model folder: {CONFIG_FILE} is missing or broken ({error})") from None


def _network(config: dict[str, Any], seed: int) -> torch.nn.Module:
    arguments = copy.deepcopy(config)
    custom = bool(arguments.pop("custom_text", False)) or "hf_model_name" in arguments["text_cfg"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network: torch.nn.Module = (CustomTextCLIP if custom else CLIP)(**arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise UsageError(f"train.model: open_clip does not take this config: {error}") from None
    return network


def _initialise(network: torch.nn.Module, model: str | Architecture, init: str) -> None:
    try:
        network.load_state_dict(_weights(model, init))
    except (RuntimeError, OSError, SafetensorError) as error:
        first = str(error).strip().splitlines()
        raise UsageError(f"train.init={init}: the weights do not load: {' '.join(first[:2])}") from None


def _weights(model: str | Architecture, init: str) -> dict[str, torch.Tensor]:
    if Path(init).is_dir():
        return load_file(Path(init) / WEIGHTS_FILE)
    known = open_clip.list_pretrained_tags_by_model(model) if isinstance(model, str) else []
    if init not in known:
        choices = f"one of {', '.join(known)}, or a folder" if known else "a folder"
        raise UsageError(f"train.init={init}: no such folder, and no weights of this model; give {choices}")
    state: dict[str, torch.Tensor] = open_clip.create_model(str(model), pretrained=init).state_dict()
    return state


def _tokenizer(model: str | Architecture, config: dict[str, Any]) -> Tokenizer:
    if isinstance(model, str):
        tokenizer: Tokenizer = open_clip.get_tokenizer(model)
        return tokenizer
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    if "hf_tokenizer_name" in text:
        tokenizer = open_clip.tokenizer.HFTokenizer(text["hf_tokenizer_name"], context_length=length)
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=length, **(text.get("tokenizer_kwargs") or {}))
    return tokenizer


def _side(config: dict[str, Any]) -> int:
    size = config["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])
