"""Where a CLIP model's weights lie, and their digest: a score means nothing without it."""

from __future__ import annotations

import functools
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from curate.errors import InputError, MissingExtra, UsageError
from curate.schema import nearest
from curate.store import file_sha256

CONFIG_NAME = "open_clip_config.json"
WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Model:
    """Which weights stand behind a column; `label` is what they are called wherever they lie."""

    column: str
    label: str
    sha256: str
    name: str = ""

    @classmethod
    def of(cls, column: str, file: Path) -> Model:
        """Of a file of weights. Raises InputError when it cannot be read."""
        try:
            return cls(column, file.name, digest(file))
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class Weights:
    """What open_clip is asked for: `name` (architecture, `hf-hub:…` or `local-dir:…`), `tag` of known weights or None."""

    name: str
    tag: str | None
    file: Path
    sha256: str
    quick_gelu: bool = False


def find_weights(model: str, weights: str) -> Weights:
    """Finds, and where needed downloads, the weights; `weights` is a tag of open_clip, `hf-hub:…`, or a local folder.

    Raises UsageError, in one line, when they are unknown, incomplete, or cannot be downloaded.
    """
    if weights.startswith("hf-hub:"):
        return _from_hub(weights)
    folder = Path(weights.removeprefix("local-dir:")).expanduser()
    if folder.is_dir() or weights.startswith("local-dir:") or "/" in weights:
        return _from_folder(folder)
    return _from_tag(model, weights)


def _from_folder(folder: Path) -> Weights:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: weights= takes a tag of open_clip, hf-hub:OWNER/NAME, or a folder that exists")
    try:
        config = json.loads((folder / CONFIG_NAME).read_text())
    except (OSError, ValueError):
        raise UsageError(f"{folder} holds no readable {CONFIG_NAME}: name a folder with that file and {WEIGHT_NAMES[0]}") from None
    if "model_cfg" not in config:
        raise UsageError(f"{folder / CONFIG_NAME} has no model_cfg: write it as open_clip does when it pushes a model")
    found = [folder / name for name in WEIGHT_NAMES if (folder / name).is_file()]
    if not found:
        raise UsageError(f"{folder} holds no {WEIGHT_NAMES[0]}: save the weights there as safetensors")
    return Weights(f"local-dir:{folder}", None, found[0], digest(found[0]))


@functools.lru_cache(maxsize=16)  # asked once per part; the hub answers over the network
def _from_hub(weights: str) -> Weights:
    _open_clip()
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        file = Path(download_pretrained_from_hf(weights.removeprefix("hf-hub:")))
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_download(weights, error) from None
    return Weights(weights, None, file, digest(file))


@functools.lru_cache(maxsize=16)
def _from_tag(model: str, tag: str) -> Weights:
    open_clip = _open_clip()
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    models = open_clip.list_models()
    if model not in models:
        raise UsageError(f"open_clip knows no model {model!r}{nearest(model, models)}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise UsageError(f"open_clip has no weights {tag!r} of {model}{nearest(tag, tags)}; there are {', '.join(tags) or 'none'}")
    config = get_pretrained_cfg(model, tag)
    try:
        file = Path(download_pretrained(config))
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_download(f"{tag} of {model}", error) from None
    return Weights(model, tag, file, digest(file), bool(config.get("quick_gelu", False)))


def _no_download(what: str, error: BaseException) -> UsageError:
    cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UsageError(
        f"cannot download the weights {what} ({cause}); without a network, copy {CONFIG_NAME} and {WEIGHT_NAMES[0]} into a folder "
        "and set weights=/that/folder"
    )


def _open_clip() -> ModuleType:
    try:
        return importlib.import_module("open_clip")
    except ImportError:
        raise MissingExtra("open_clip_torch", "train") from None


def digest(file: Path) -> str:
    """sha256 of a weights file, computed once per process and state of the file."""
    status = file.stat()
    return _digest(str(file), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: str, size_bytes: int, modified_ns: int) -> str:
    return file_sha256(Path(path))
