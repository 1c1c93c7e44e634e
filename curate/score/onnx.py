"""The only place that runs ONNX files: where they lie, and a session that computes the same on every machine of a kind."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError, MissingExtra

EXTRA = "onnx"


@dataclass(frozen=True)
class OnnxModel:
    """A loaded model with one input, float32; `shape` has None where it takes any size."""

    path: Path
    session: Any
    input: str
    shape: tuple[int | None, ...]

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for a batch. Raises InputError, one line, for what the model cannot compute."""
        try:
            return np.asarray(self.session.run(None, {self.input: np.ascontiguousarray(batch)})[0], np.float32)
        except Exception as error:  # onnxruntime's own kinds share no base
            raise InputError(f"{self.path}: {_first_line(error)}") from None


def packaged(distribution: str, pattern: str) -> Path:
    """A file that an installed package brings, read as data: the package itself is not imported. Raises MissingExtra."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtra(distribution, EXTRA) from None
    found = sorted(Path(str(file.locate())) for file in files if fnmatch(file.name, pattern))
    if not found or not found[0].is_file():
        raise InputError(f"{distribution} of this machine brings no {pattern}: name a file of your own as  path=")
    return found[0]


def load(path: Path, threads: int = 1) -> OnnxModel:
    """Opens a model on the CPU. Raises InputError in one line when it is none, MissingExtra without onnxruntime.

    The number of threads is fixed, because sums of another number differ in the last bits.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", EXTRA) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{path}: cannot be loaded as ONNX: {_first_line(error)}") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        raise InputError(f"{path}: wants {', '.join(f'{one.name} {one.type}' for one in inputs) or 'nothing'}, not one picture of floats")
    shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
    return OnnxModel(path, session, inputs[0].name, shape)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
