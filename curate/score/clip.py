"""The only place that loads a CLIP model: architecture, weights, tokenizer and preprocessing in one object."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.errors import MissingExtra, UsageError
from curate.score.preprocess import Normaliser, Preprocess
from curate.score.scorer import Pixels
from curate.score.weights import Weights, find_weights

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]
MAX_CAPTION_CHARACTERS = 2000
"""Tokenizers read no further: no context is this long, and byte-pair merging takes quadratic time on one long word."""


@dataclass(frozen=True)
class Clip:
    """A loaded model in evaluation mode; embeddings come out as float32 of unit length."""

    model: Any
    tokenizer: Any
    preprocess: Preprocess
    device: torch.device
    precision: Literal["fp32", "bf16"]
    weights: Weights
    dim: int
    normalise: Normaliser
    clock: GpuClock = field(default_factory=lambda: GpuClock())

    def encode_images(self, pictures: Sequence[Pixels] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings (n, dim) of n preprocessed pictures (height, width, 3 bytes each; see `preprocess`)."""
        return self.encode_batch(self._batch(pictures))

    def encode_batch(self, batch: torch.Tensor) -> NDArray[np.float32]:
        """Embeddings (n, dim) of normalised numbers (n, 3, height, width) on the device."""
        return self._encode(self.model.encode_image, batch)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (n, dim) of n texts."""
        return self.encode_tokens(self.tokenize(texts).to(self.device))

    def encode_tokens(self, tokens: torch.Tensor) -> NDArray[np.float32]:
        """Embeddings (n, dim) of token ids (n, context length) on the device."""
        from curate.score.towers import encode_text

        return self._encode(partial(encode_text, self.model), tokens)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids (n, context length) int64, longer texts cut."""
        tokens: torch.Tensor = self.tokenizer([text[:MAX_CAPTION_CHARACTERS] for text in texts])
        return tokens

    def _batch(self, pictures: Sequence[Pixels] | NDArray[np.uint8]) -> torch.Tensor:
        """Normalised numbers (n, 3, height, width) on the device; a GPU gets bytes, a quarter of what numbers would take."""
        import torch

        if self.device.type == "cpu":
            return torch.from_numpy(self.normalise(pictures))
        raw = torch.from_numpy(np.stack([picture.transpose(2, 0, 1) for picture in pictures])).to(self.device)
        scale, shift = (torch.from_numpy(values).to(self.device) for values in self.normalise.factors)
        return raw.float().mul_(scale).sub_(shift)

    def _encode(self, encoder: Any, batch: torch.Tensor) -> NDArray[np.float32]:
        import torch

        reduced = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self.clock.running(self.device):
            with torch.inference_mode(), reduced:
                features = encoder(batch)
            unit = torch.nn.functional.normalize(features.float(), dim=-1).cpu()
        return np.asarray(unit.numpy(), np.float32)


class GpuClock:
    """How long a CUDA device computed, by its own clock; a CPU's time is counted with the rest of the worker's."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Counts the block, which ends with a copy to the host, that is when the device is done."""
        if device.type != "cuda":
            yield
            return
        import torch

        event: Any = torch.cuda.Event  # has no types
        begin, end = event(enable_timing=True), event(enable_timing=True)
        stream = torch.cuda.current_stream(device)
        begin.record(stream)
        yield
        end.record(stream)
        end.synchronize()
        self._seconds += begin.elapsed_time(end) / 1000

    def spent(self) -> float:
        """Seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def load_clip(model: str, weights: str, device: str = "auto", precision: Precision = "auto") -> Clip:
    """Loads a CLIP model for scoring or evaluation.

    `model` is an open_clip architecture; `weights` one of its tags, `hf-hub:OWNER/NAME`, or a folder with
    open_clip_config.json and open_clip_model.safetensors (then the folder decides the architecture and `model` is only
    a name). `auto` means the first CUDA device, else the CPU; and bf16 where a CUDA device has it, else fp32.
    Raises UsageError in one line when that cannot be done, MissingExtra without open_clip.
    """
    found = find_weights(model, weights)
    chosen = _device(device)
    try:
        network, tokenizer = _build(found)
    except _load_errors() as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"cannot load {found.file}: {cause}") from None
    network = network.to(chosen).eval().requires_grad_(False)
    preprocess = Preprocess.of(network.visual.preprocess_cfg)
    kind = _precision(precision, chosen)
    if kind == "bf16":
        _reduce(network)
    clip = Clip(network, tokenizer, preprocess, chosen, kind, found, 0, Normaliser(preprocess.mean, preprocess.std))
    return replace(clip, dim=clip.encode_texts([""]).shape[1])


def _reduce(network: Any) -> None:
    import torch

    from curate.score.towers import reduce_weights

    reduce_weights(network, torch.bfloat16)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Fixes the number of CPU threads of torch inside the block: sums are reproducible only with the same number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def column_name(model: str, weights: str) -> str:
    """Name of the score column: `clip_<model>_<weights>` in [a-z0-9_].

    A folder stands by its name, a hub id in full, twice the same name once.
    """
    return "_".join(dict.fromkeys(["clip", _plain(model), _plain(weights_label(weights))]))


def weights_label(weights: str) -> str:
    """What weights are called wherever they lie: the tag, the hub id, or the folder's own name."""
    if weights.startswith("hf-hub:"):
        return weights.removeprefix("hf-hub:")
    return weights.rstrip("/").rsplit("/", 1)[-1].removeprefix("local-dir:")


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _build(found: Weights) -> tuple[Any, Any]:
    import open_clip

    with _quiet():
        model = open_clip.create_model(
            found.name, pretrained=found.tag, force_quick_gelu=found.quick_gelu, require_pretrained=True, weights_only=True
        )
        return model, open_clip.get_tokenizer(found.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip tells the root logger about every step; only its errors matter here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _load_errors() -> tuple[type[Exception], ...]:
    try:
        from safetensors import SafetensorError
    except ImportError:
        raise MissingExtra("safetensors", "train") from None
    return (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def _device(name: str) -> torch.device:
    import torch

    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UsageError(f"no device {name!r}: use auto, cpu, or cuda:NUMBER") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device that torch can use: set device=cpu or device=auto")
    return chosen


def _precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    import torch

    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
