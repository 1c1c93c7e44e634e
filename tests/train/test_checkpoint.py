"""Checkpoints come back bit by bit, a cut one is passed over, and another run's is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curate.errors import IdentityError
from curate.train import checkpoint, model
from curate.train.checkpoint import Progressed
from curate.train.model import Clip
from curate.train.settings import Architecture
from tests.train.pictures import TINY


def started(seed: int = 0) -> tuple[Clip, torch.optim.AdamW]:
    clip = model.build(Architecture.model_validate(TINY), seed=seed)
    return clip, torch.optim.AdamW(clip.network.parameters(), lr=1e-3)


def step(clip: Clip, optimizer: torch.optim.AdamW, seed: int) -> None:
    images = torch.rand(4, 3, clip.image_side, clip.image_side, generator=torch.Generator().manual_seed(seed))
    image, text, _ = clip.network(images, clip.tokenizer(["a", "b", "c", "d"]))
    optimizer.zero_grad()
    (image * text).sum().backward()
    optimizer.step()


def written(out: Path, steps: int = 3) -> tuple[Clip, torch.optim.AdamW]:
    clip, optimizer = started()
    for number in range(1, steps + 1):
        step(clip, optimizer, number)
        checkpoint.save(out, "mine", clip, optimizer, Progressed(number, tuple(float(n) for n in range(number))))
    return clip, optimizer


def test_model_moments_and_random_state_come_back(tmp_path: Path) -> None:
    clip, optimizer = written(tmp_path)
    torch.manual_seed(77)
    checkpoint.save(tmp_path, "mine", clip, optimizer, Progressed(3, (0.0, 1.0, 2.0)))
    expected = torch.rand(3)
    other, fresh = started(9)
    assert checkpoint.restore(tmp_path, "mine", other, fresh) == Progressed(3, (0.0, 1.0, 2.0))
    assert torch.equal(torch.rand(3), expected)
    step(clip, optimizer, 50)
    step(other, fresh, 50)
    ours, theirs = clip.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_last_two_stay(tmp_path: Path) -> None:
    written(tmp_path, steps=4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("name", [model.WEIGHTS_FILE, checkpoint.TENSORS_FILE, checkpoint.STATE_FILE])
def test_a_cut_checkpoint_falls_back_to_the_one_before(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    latest = tmp_path / "checkpoints" / "step-00000003" / name
    latest.write_bytes(latest.read_bytes()[: latest.stat().st_size // 2])
    assert checkpoint.restore(tmp_path, "mine", *started()).steps == 2


def test_without_a_whole_checkpoint_a_run_begins_at_its_beginning(tmp_path: Path) -> None:
    assert checkpoint.restore(tmp_path, "mine", *started()).steps == 0
    written(tmp_path, steps=1)
    (tmp_path / "checkpoints" / "step-00000001" / checkpoint.STATE_FILE).unlink()
    assert checkpoint.restore(tmp_path, "mine", *started()).steps == 0


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    written(tmp_path, steps=1)
    with pytest.raises(IdentityError, match="other settings or data"):
        checkpoint.restore(tmp_path, "theirs", *started())
