"""Whole runs on a Ray cluster of three nodes: the same pool as on a laptop, however it is started and whatever is killed."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import curate
from tests.e2e.kills import Kind, Undisturbed, driver, sweep
from tests.e2e.runs import Site, finish, shards_of
from tests.engines.fake_slurm import put_on_path
from tests.engines.phases import wait_until
from tests.engines.ray_nodes import Nodes

pytestmark = pytest.mark.ray


def ray_words(nodes: Nodes) -> tuple[str, ...]:
    return ("engine=ray", f"engine.address={nodes.address}")


@pytest.mark.parametrize(
    "name",
    ["ray, 3 nodes", pytest.param("local, 1 worker", marks=pytest.mark.long), pytest.param("local, 4 workers", marks=pytest.mark.long)],
)
def test_the_same_pool_and_shards(served: Site, calm: Undisturbed, calm_folder: Path, ray_nodes: Nodes, tmp_path: Path, name: str) -> None:
    words = {"local, 1 worker": ["engine.workers=1"], "local, 4 workers": ["engine.workers=4"]}
    finish(served.command(tmp_path / "pool", *words.get(name, [*ray_words(ray_nodes), "engine.workers=0"])), tmp_path / "log")
    pool = curate.open(tmp_path / "pool")
    pool.verify().require()
    assert pool.digest() == calm.digest
    assert shards_of(tmp_path / "pool") == shards_of(calm_folder / "pool")


@pytest.mark.long
def test_ray_job_submit_runs_a_recipe(served: Site, calm: Undisturbed, ray_nodes: Nodes, tmp_path: Path) -> None:
    """As a user sends it to the head: the job finds its cluster by itself."""
    root = Path(__file__).parent.parent.parent
    program = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", ray_nodes.dashboard, "--"]
    recipe = [sys.executable, str(root / "pipelines" / "ingest.py"), str(tmp_path / "pool"), *served.said(), "engine=ray"]
    done = subprocess.run([*program, *recipe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert curate.open(tmp_path / "pool").digest() == calm.digest


@pytest.mark.long
def test_a_cluster_inside_one_allocation_runs_a_recipe(
    served: Site, calm: Undisturbed, calm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's template with three nodes, a head and two workers: the laptop's pool, and nothing of Ray is left behind."""
    put_on_path(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    template = Path(__file__).parent.parent.parent / "pipelines" / "slurm" / "ray.sbatch"
    pool, asked = tmp_path / "pool", ["sbatch", "--wait", "--nodes=3", "--cpus-per-task=1", str(template), "ingest"]
    before = raylets_here()
    job = subprocess.run([*asked, str(pool), *served.said()], capture_output=True, text=True, check=False, cwd=tmp_path)
    log = "".join(path.read_text() for path in tmp_path.glob("curate-ray-*.log"))
    assert job.returncode == 0, job.stderr + log
    assert curate.open(pool).digest() == calm.digest and shards_of(pool) == shards_of(calm_folder / "pool")
    assert log.count("Ray runtime started") >= 2, log  # so short a run may be over before the third has joined
    wait_until(lambda: raylets_here() == before)


def raylets_here() -> set[int]:
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"}


def kind(nodes: Nodes) -> Kind:
    """What can be killed of a run on this cluster; nodes that were killed are replaced by new ones."""

    def raylets(pid: int) -> list[psutil.Process]:
        nodes.refill()
        return nodes.raylets()

    def workers(pid: int) -> list[psutil.Process]:
        return [child for raylet in nodes.raylets() for child in _children(raylet) if "_Hand" in _name(child)]

    return Kind("ray", ray_words(nodes), {"driver": driver, "raylet": raylets, "ray worker": workers})


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children()
    return []


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def test_kills_on_ray(served: Site, calm: Undisturbed, ray_nodes: Nodes, tmp_path: Path) -> None:
    """The short form: each sort of process once, on one pool."""
    found = sweep(served, calm, tmp_path, random.Random(2), ["ray worker", "raylet", "driver"], kind(ray_nodes))
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
    assert found.killed.total() == 3


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_kill_sweep_on_ray(served: Site, calm: Undisturbed, ray_nodes: Nodes, tmp_path: Path) -> None:
    """60 kills (CURATE_RAY_KILLS)."""
    draw, one = random.Random(int(os.environ.get("CURATE_KILL_SEED", "4"))), kind(ray_nodes)
    found = sweep(served, calm, tmp_path, draw, draw.choices(sorted(one.victims), k=int(os.environ.get("CURATE_RAY_KILLS", "60"))), one)
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
