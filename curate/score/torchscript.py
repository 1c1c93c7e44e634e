"""Networks of others in TorchScript files. Such a file is code: take it from whom you trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.errors import InputError, MissingExtra


def load(file: Path, device: str = "cpu", refused: str = "no TorchScript file that can be loaded") -> Any:
    """The network in the file, on the device, ready to predict. Raises InputError that says `refused`, MissingExtra without torch."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "train") from None
    try:
        return torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{file}: {refused} ({said[:200]}); weights alone are no network: export it first") from None
