"""Checkpoints: one folder a step, written aside, forced to disk, then renamed; the last two stay until the run is finished.

    OUT/checkpoints/step-00000200/
      open_clip_config.json  open_clip_model.safetensors   the model, as open_clip loads it
      training_state.safetensors                           optimizer moments, random states, losses so far
      training_state.json                                  step, whose run it is, sha256 of the other files

A checkpoint whose files do not have the recorded hashes (a crash in the middle, a full disk) is passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from curate.errors import IdentityError, LocalFault
from curate.store import file_sha256, sync_file, sync_folder
from curate.train import model
from curate.train.model import Clip

KEPT = 2
STATE_FILE = "training_state.json"
TENSORS_FILE = "training_state.safetensors"


@dataclass(frozen=True)
class Progressed:
    """Where a run stands: `steps` taken, and the loss of each."""

    steps: int
    losses: tuple[float, ...]


def save(out: Path, identity: str, clip: Clip, optimizer: torch.optim.Optimizer, at: Progressed) -> Path:
    """Writes the checkpoint of step `at.steps` and removes all but the last two; returns its folder."""
    folder = out / "checkpoints"
    final = folder / f"step-{at.steps:08d}"
    aside = folder / f".{final.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(aside, identity, clip, optimizer, at)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        sync_folder(folder)
    except OSError as error:
        raise LocalFault(f"cannot write the checkpoint {final}: {error.strerror or error}; free space and run again") from error
    for old in _folders(out)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def restore(out: Path, identity: str, clip: Clip, optimizer: torch.optim.Optimizer) -> Progressed:
    """Puts the newest whole checkpoint back into `clip` and `optimizer`; a folder without one is at step 0.

    Raises IdentityError when the checkpoint is of a run with other settings or data.
    """
    for folder in _folders(out):
        state = _intact(folder)
        if state is None:
            continue
        if state["identity"] != identity:
            raise IdentityError(
                f"{out} holds an unfinished run with other settings or data: finish that, choose another name, or delete it"
            )
        clip.network.load_state_dict(load_file(folder / model.WEIGHTS_FILE))
        return _restore_tensors(load_file(folder / TENSORS_FILE), optimizer)
    return Progressed(0, ())


def clear(out: Path) -> None:
    """Forgets the checkpoints of an earlier run."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def replace_file(path: Path, text: str) -> None:
    """Writes `text` so that a reader finds the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    sync_file(aside)
    aside.replace(path)
    sync_folder(path.parent)


def _write(folder: Path, identity: str, clip: Clip, optimizer: torch.optim.Optimizer, at: Progressed) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save(clip, folder)
    save_file(_tensors(optimizer, at), folder / TENSORS_FILE)
    names = (model.CONFIG_FILE, model.WEIGHTS_FILE, TENSORS_FILE)
    state = {"step": at.steps, "identity": identity, "files": {name: file_sha256(folder / name) for name in names}}
    (folder / STATE_FILE).write_text(json.dumps(state, indent=1))
    for name in (*names, STATE_FILE):
        sync_file(folder / name)
    sync_folder(folder)


def _folders(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step-*"), reverse=True)


def _intact(folder: Path) -> dict[str, Any] | None:
    try:
        state = dict(json.loads((folder / STATE_FILE).read_text()))
        whole = all(file_sha256(folder / name) == digest for name, digest in state["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return state if whole else None


def _tensors(optimizer: torch.optim.Optimizer, at: Progressed) -> dict[str, torch.Tensor]:
    tensors = {"losses": torch.tensor(at.losses, dtype=torch.float32), "random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for index, moments in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value.detach().cpu().contiguous() for name, value in moments.items()})
    return tensors


def _restore_tensors(tensors: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> Progressed:
    losses = tuple(tensors.pop("losses").tolist())
    torch.set_rng_state(tensors.pop("random.cpu"))
    if (state := tensors.pop("random.cuda", None)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        _, index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progressed(len(losses), losses)
