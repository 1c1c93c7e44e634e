"""The loop learns, is deterministic, goes on exactly where it was killed, and is the same on two processes as on one."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.demo.scenes import scenes
from curate.errors import IdentityError, RunFailed, UsageError
from curate.shards.selection import Selection
from curate.train import model
from curate.train.loop import learning_rate, parameter_groups, train
from curate.train.settings import Architecture, TrainSettings
from tests.train.pictures import TINY, selection

SETTINGS = {"model": TINY, "batch_size": 16, "epochs": 5, "lr": 2e-3, "warmup_steps": 4, "threads": 1, "workers": 1}

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from curate.progress import Silent
from curate.shards.selection import Selection
from curate.train.loop import train
from curate.train.settings import TrainSettings

folder, out, settings, deadline = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])

class Killer(Silent):
    steps = 0
    def advance(self, task, n=1, **facts):
        self.steps += n if task == "train" else 0
        if self.steps >= deadline:
            os.kill(os.getpid(), signal.SIGKILL)

train(Selection(folder, pq.read_table(folder / "rows.parquet")), TrainSettings(**settings), out, Killer())
"""


def settings(**changes: object) -> TrainSettings:
    return TrainSettings.model_validate({**SETTINGS, **changes})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    import pyarrow.parquet as pq

    found = selection(tmp_path_factory.mktemp("loop"), scenes(80, 0, "eval"))
    pq.write_table(found.rows, found.pool / "rows.parquet")
    return found


def run_script(source: Selection, out: Path, deadline: int = 10**9, **changes: object) -> subprocess.CompletedProcess[str]:
    said = json.dumps({**SETTINGS, **changes})
    call = [sys.executable, "-c", SCRIPT, str(source.pool), str(out), said, str(deadline)]
    return subprocess.run(call, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_it_learns_its_pairs_and_leaves_a_model(source: Selection, tmp_path: Path) -> None:
    report = train(source, settings(epochs=12), tmp_path / "out")
    assert report.steps == len(report.loss_history) == 60
    assert report.samples_seen == 60 * 16
    assert np.mean(report.loss_history[-5:]) < 0.75 * np.mean(report.loss_history[:5])
    assert model.load(Path(report.path)).image_side == 32


def test_equal_calls_give_equal_models_and_another_seed_another(source: Selection, tmp_path: Path) -> None:
    first, again, other = (train(source, settings(seed=seed), tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    weights = [(Path(report.path) / model.WEIGHTS_FILE).read_bytes() for report in (first, again, other)]
    assert first.loss_history == again.loss_history != other.loss_history
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("streamed", [False, pytest.param(True, marks=pytest.mark.long)], ids=["in_memory", "streamed"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(source: Selection, tmp_path: Path, streamed: bool) -> None:
    changes = {"checkpoint_every_steps": 4, "cache_bytes": 0 if streamed else 1 << 30}
    undisturbed = train(source, settings(**changes), tmp_path / "undisturbed")
    killed = run_script(source, tmp_path / "killed", deadline=10, **changes)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / model.WEIGHTS_FILE).exists()
    assert [path.name for path in sorted((tmp_path / "killed" / "checkpoints").iterdir())][-1] == "step-00000008"
    resumed = train(source, settings(**changes), tmp_path / "killed")
    assert resumed.loss_history == undisturbed.loss_history
    folders = (tmp_path / "killed", tmp_path / "undisturbed")
    assert len({(folder / model.WEIGHTS_FILE).read_bytes() for folder in folders}) == 1


def test_a_finished_run_is_not_repeated_and_gives_way_to_another(source: Selection, tmp_path: Path) -> None:
    report = train(source, settings(checkpoint_every_steps=10), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    written = (tmp_path / model.WEIGHTS_FILE).stat().st_mtime_ns
    assert train(source, settings(checkpoint_every_steps=99, workers=2), tmp_path) == report
    assert (tmp_path / model.WEIGHTS_FILE).stat().st_mtime_ns == written
    other = train(source, settings(lr=1e-4), tmp_path)
    assert other.loss_history != report.loss_history
    assert train(source, settings(lr=1e-4), tmp_path) == other


def test_an_unfinished_run_is_not_lost_to_another(source: Selection, tmp_path: Path) -> None:
    assert run_script(source, tmp_path, deadline=10, checkpoint_every_steps=4).returncode == -signal.SIGKILL
    with pytest.raises(IdentityError, match="unfinished run with other settings or data"):
        train(source, settings(lr=1e-4), tmp_path)
    assert train(source, settings(lr=1e-4), tmp_path, resume=False).steps == 25


def test_two_processes_take_the_steps_of_one(source: Selection, tmp_path: Path) -> None:
    alone = train(source, settings(), tmp_path / "alone")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    said = [str(source.pool), str(tmp_path / "shared"), json.dumps(SETTINGS), str(10**9)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([*call, *said], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "shared" / "train_report.json").read_text())
    assert found["loss_history"] == pytest.approx(alone.loss_history, rel=2e-3)


def test_rates_rise_straight_and_fall_as_half_a_cosine() -> None:
    chosen = settings(lr=1.0, warmup_steps=10)
    rates = [learning_rate(step, 110, chosen) for step in range(110)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[10] == 1.0 and rates[60] == pytest.approx(0.5) and 0 < rates[-1] < 1e-3
    assert max(learning_rate(step, 8, chosen) for step in range(8)) == 1.0  # a warm-up never takes more than half


def test_gains_biases_and_the_temperature_are_not_decayed() -> None:
    network = model.build(Architecture.model_validate(TINY)).network
    decayed, kept = parameter_groups(network, 0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    undecayed = {names[id(parameter)] for parameter in kept["params"]}  # type: ignore[attr-defined]
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= undecayed
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert len(undecayed) + len(decayed["params"]) == len(names)  # type: ignore[arg-type]


def test_the_temperature_stays_below_100(source: Selection, tmp_path: Path) -> None:
    start = model.build(Architecture.model_validate(TINY))
    with torch.no_grad():
        start.network.get_parameter("logit_scale").fill_(5.5)
    model.save(start, tmp_path / "start")
    train(source, settings(init=str(tmp_path / "start"), epochs=1), tmp_path / "out")
    assert model.load(tmp_path / "out").network.get_parameter("logit_scale").item() <= math.log(100) + 1e-6


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"batch_size": 200}, UsageError, "80 samples, fewer than one batch"),
        ({"lr": 1e18, "warmup_steps": 0, "grad_clip_norm": None}, RunFailed, "no longer finite"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    source: Selection, tmp_path: Path, changes: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        train(source, settings(**changes), tmp_path)


def test_epochs_and_samples_seen_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        settings(samples_seen=100)
    assert settings(epochs=None, samples_seen=100).total_steps(80) == 6
    assert settings(epochs=3).total_steps(80) == 15
