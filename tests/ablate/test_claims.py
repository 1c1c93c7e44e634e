"""What an ablation must be able to tell, on scenes of which 30 % have another's caption: it takes minutes.

A CLIP trained on half of the raw rows, noise and all, scores the other half, which is the pool.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import curate
from curate.ablate.result import Ablation
from tests.ablate.pools import SWAPPED, held_out, scene_pool
from tests.train.test_filter_effect import drawn, judged

ROWS, HELD_OUT, SCORER_SAMPLES, SAMPLES = 4000, 400, 11_520, 6_400
LOT = "('0x' || md5(sample_id)[:7])::BIGINT % 100"
TRAIN = {
    "model": {
        "embed_dim": 64,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 32},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    },
    "batch_size": 128, "lr": 0.002, "warmup_steps": 10, "weight_decay": 0.1, "crop_scale": [0.8, 1.0], "threads": 2, "workers": 2,
}  # fmt: skip


def build(folder: Path) -> Path:
    """The pool, and beside it the tar to evaluate on."""
    found = judged(folder / "scorer", 0, ROWS, SCORER_SAMPLES)
    assert found.auc >= 0.9
    scene_pool(folder / "pool", found.scenes, found.found.tolist())
    held_out(folder / "held_out.tar", drawn(HELD_OUT, 0, "eval"))
    return folder


def ablate(folder: Path, name: str, **said: Any) -> Ablation:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"samples_seen": SAMPLES, "train": TRAIN, "evaluate": {"data": str(folder / "held_out.tar")}, **said}))
    report = curate.open(folder / "pool").ablate(file)
    print(report.text(), flush=True)
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("claims"))


def twins(folder: Path) -> None:
    half = f"{LOT} < 50"
    found = ablate(folder, "twins", arms={"one": {"where": half}, "two": {"where": half}}, seeds=5)
    assert [line.difference.verdict for line in found.lines] == ["no difference"] * 2
    assert [pair.difference.verdict for pair in found.pairs] == ["no difference"]
    assert found.winner is None


def swapped(folder: Path) -> None:
    lot = f"{LOT} < 30"
    found = ablate(folder, "swapped", candidates=f"url NOT LIKE '%{SWAPPED}%' OR {lot}", arms={"swapped": {"where": lot}}, seeds=5)
    assert found.lines[0].difference.verdict == "worse"


def sweep(folder: Path) -> None:
    fractions = [share / 10 for share in range(1, 10)]
    found = ablate(folder, "sweep", arms={"clip": {"sweep": {"column": "clip_score", "fractions": fractions}}}, seeds=3)
    assert found.best.name not in ("clip@0.1", "clip@0.9")
    assert all(line.difference.value > 0 for line in found.lines)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("claim", [twins, swapped, sweep])
def test_what_an_ablation_tells(folder: Path, claim: Any) -> None:
    claim(folder)
