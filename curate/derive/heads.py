"""Linear and MLP heads on stored image embeddings: aesthetics, safety, watermarks, whatever was trained on a CLIP model's output."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.derive.measure import Derived, Values, scores
from curate.derive.vectors import Vectors
from curate.errors import InputError, MissingExtra
from curate.settings import Settings
from curate.stage import identity_of

_ROWS = 4096
_LAYER = re.compile(r"^(?:layers\.|linear_)(\d+)\.weight$")
_AESTHETIC = (0, 2, 4, 6, 7)  # a dropout layer after most of the linear ones, and no activation
_NORM = {"norm.mean", "norm.variance"}
_NSFW_H14 = (0, 3, 6, 9, 12, 15, 16)  # ReLU and dropout after all but the last two

Weights = Mapping[str, NDArray[np.float32]]


class Head(Settings):
    """One number for each image, from a file of weights (.pth, .pt or .safetensors) as its authors published it.

    Known by the names of their weights are LAION's aesthetic predictors (version 1: one linear layer; version 2: five linear
    layers without activation), LAION's CLIP-based NSFW detectors in PyTorch (L/14 and B/32: normalisation, `linear_1` …, ReLU,
    sigmoid; H/14: `layers.0` …, ReLU), and the same layers of other sizes. Of others say what stands `between` their linear
    layers and whether the `output` goes through a sigmoid. Embeddings are given at length 1, and must be of the model that the
    head was trained on: the file does not say which that is.
    """

    path: str
    between: Literal["auto", "none", "relu"] = "auto"
    output: Literal["auto", "none", "sigmoid"] = "auto"

    def sha256(self) -> str:
        """Of the file's bytes. Raises InputError when it cannot be read."""
        try:
            with Path(self.path).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None

    def read(self) -> Network:
        """The layers. Raises InputError, one line, for a file that is no such head."""
        weights = _read(Path(self.path))
        if set(weights) == {"weight", "bias"}:
            weights = {"layers.0.weight": weights["weight"], "layers.0.bias": weights["bias"]}
        numbered = sorted((int(found[1]), name.removesuffix(".weight")) for name in weights if (found := _LAYER.match(name)))
        wanted = {name for _, layer in numbered for name in (f"{layer}.weight", f"{layer}.bias")}
        if not numbered or not wanted <= set(weights) or set(weights) - wanted not in (set(), _NORM):
            raise InputError(f"{self.path}: no linear or MLP head that is known here; its weights are {', '.join(sorted(weights)[:6])}")
        layers = [(weights[f"{layer}.weight"], weights[f"{layer}.bias"]) for _, layer in numbered]
        numbers = tuple(number for number, _ in numbered)
        is_norm = "norm.mean" in weights
        relus, sigmoid = self._relus(numbers, is_norm), self.output == "sigmoid" or (self.output == "auto" and is_norm)
        norm = (weights["norm.mean"], weights["norm.variance"]) if is_norm else None
        return _checked(Network(tuple(layers), relus, sigmoid, norm), self.path)

    def _relus(self, numbers: tuple[int, ...], is_norm: bool) -> tuple[bool, ...]:
        """Whether a ReLU follows each linear layer."""
        if self.between != "auto" or len(numbers) == 1:
            return (*[self.between == "relu"] * (len(numbers) - 1), False)
        if is_norm:
            return (*[True] * (len(numbers) - 1), False)
        if numbers in (_AESTHETIC, _NSFW_H14):
            return (*(after - before == 3 for before, after in pairwise(numbers)), False)
        raise InputError(f"{self.path}: what stands between its linear layers cannot be told: say  between=relu  or  between=none")


@dataclass(frozen=True)
class Network:
    """Linear layers (weight (out, in), bias (out,)) with or without a ReLU after each, a normalisation before, a sigmoid behind."""

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    relus: tuple[bool, ...]
    sigmoid: bool
    norm: tuple[NDArray[np.float32], NDArray[np.float32]] | None

    @property
    def dim(self) -> int:
        """Of the embeddings that it wants."""
        return int(self.layers[0][0].shape[1])

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) to (n,)."""
        if self.norm is not None:
            mean, variance = self.norm
            vectors = np.asarray((vectors - mean) / (np.sqrt(variance) + 1e-10), np.float32)
        for (weight, bias), relu in zip(self.layers, self.relus, strict=True):
            vectors = vectors @ weight.T + bias
            if relu:
                vectors = np.maximum(vectors, 0)
        found = vectors[:, 0]
        return np.asarray(1 / (1 + np.exp(-found)) if self.sigmoid else found, np.float32)


@dataclass(frozen=True)
class HeadMeasure:
    """A head as a column of that name."""

    column: str
    head: Head

    @property
    def adds(self) -> pa.Schema:
        """One float32 column."""
        return scores((self.column, pa.float32(), f"what the head {Path(self.head.path).name} makes of the image embedding"))

    def identity(self) -> str:
        """Changes with the file's bytes, wherever it lies, and with how it is read."""
        said = {"sha256": self.head.sha256(), "column": self.column, "between": self.head.between, "output": self.head.output}
        return identity_of("Head", 1, said)

    def check(self, dim: int) -> None:
        """Raises InputError when the head wants embeddings of another model."""
        wanted = self.head.read().dim
        if wanted != dim:
            raise InputError(f"{self.head.path}: wants embeddings of {wanted} dimensions, the pool's have {dim}: another CLIP model")

    def open(self) -> Derived:
        """Reads the file."""
        network = self.head.read()

        def derive(part: Vectors) -> Values:
            blocks = [network(part.images[at : at + _ROWS]) for at in range(0, len(part.images), _ROWS)]
            return [np.concatenate(blocks)]

        return derive


def _read(path: Path) -> Weights:
    """All tensors of a file, as float32. Raises InputError."""
    try:
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(found, Mapping) or not found or not all(hasattr(value, "shape") for value in found.values()):
        raise InputError(f"{path}: holds no weights by name, as  torch.save(model.state_dict(), …)  writes them")
    return {str(name): np.asarray(value, np.float32) for name, value in found.items()}


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: no safetensors file ({error})") from None


def _torch(path: Path) -> Any:
    """Only tensors are read: a pickle could run code."""
    import pickle

    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "train") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise InputError(f"{path}: no file of PyTorch weights, or one that holds more than weights") from None


def _checked(network: Network, path: str) -> Network:
    """Raises InputError when sizes do not go together, or the last layer gives more than one number."""
    sizes = [(weight.shape, bias.shape) for weight, bias in network.layers]
    fits = all(len(shape) == 2 and bias == (shape[0],) for shape, bias in sizes)
    chain = fits and all(after[0][1] == before[0][0] for before, after in pairwise(sizes)) and sizes[-1][0][0] == 1
    norm = network.norm is None or all(one.shape == (sizes[0][0][1],) for one in network.norm)
    if not (chain and norm):
        raise InputError(
            f"{path}: its layers, of sizes {', '.join('×'.join(map(str, shape)) for shape, _ in sizes)}, give no single number"
        )
    return network
