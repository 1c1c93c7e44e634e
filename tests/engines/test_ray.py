"""What only the Ray engine has: addresses, skew, room on nodes, loss of the cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest
from ray.util import get_node_ip_address

from curate.engines import ray as engine_module
from curate.engines.base import EngineSettings
from curate.engines.ray import demand, fits
from curate.engines.skew import versions
from curate.errors import CurateError
from curate.run import make_engine, stale_parts
from curate.stage import Resources
from curate.store import Pool
from tests.engines.phases import Groups, notes, wait_until
from tests.engines.pools import parts_of
from tests.engines.ray_nodes import nodes
from tests.engines.test_conformance import RECIPE, started
from tests.ports import free_port

pytestmark = pytest.mark.ray


def command(pool: Pool, *more: str) -> list[str]:
    """Words of `curate run` that have the pool's parts done on Ray, each committed as it comes."""
    return ["run", str(RECIPE), "--pool", str(pool.path), "input.path=none.csv", "--engine", "ray", "engine.wave_parts=1", *more]


def program(pool: Pool, *more: str) -> list[str]:
    """The same as a process of its own."""
    return [sys.executable, "-m", "curate", *command(pool, *more)]


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def refused(settings: EngineSettings, phase: Groups, pool: Pool) -> CurateError:
    """What comes of it, as one line."""
    tasks, _ = stale_parts(pool, phase)
    with pytest.raises(CurateError) as error:
        list(make_engine(settings).each(phase, tasks))
    assert "\n" not in str(error.value)
    return error.value


def test_a_wrong_address_is_one_line_with_exit_code_2(pool: Pool, curate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", "{}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address, told in {
        f"127.0.0.1:{port}": f"no Ray cluster answers at engine.address=127.0.0.1:{port}: start one with",
        f"ray://127.0.0.1:{port}": "no Ray cluster answers at engine.address=ray://127.0.0.1",
        "elsewhere": "engine.address=elsewhere is no address of a Ray cluster",
    }.items():
        said = curate(*command(pool, f"engine.address={address}"))
        assert said.code == 2 and said.err.splitlines()[-1].startswith(told), said.err
        assert "Traceback" not in said.err


def test_a_stranger_at_the_address_is_refused_before_long(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing."""
    monkeypatch.setenv("ENGINE_TEST_PHASE", "{}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(program(pool, f"engine.address=127.0.0.1:{port}"), capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("no Ray cluster answers at engine.address=127.0.0.1") and done.stderr.count("\n") == 1


def test_other_software_on_a_node_is_one_line(pool: Pool, ray_cluster: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "versions", lambda: {**versions(), "pyarrow": "1.0"})
    error = refused(EngineSettings(name="ray", workers=2, **ray_cluster), Groups(), pool)
    assert re.match(r"the Ray node \S+ has other software than the driver \(pyarrow \S+ there and 1\.0 here\)", str(error))
    assert error.exit_code == 2


def test_a_cluster_without_room_is_one_line(pool: Pool, ray_cluster: dict) -> None:
    error = refused(EngineSettings(name="ray", start_seconds=2, **ray_cluster), Groups(gpus=4), pool)
    assert "in 2 s no worker could be started on 1 CPUs, 4 GPUs and 0.1 GiB (no node is that large)" in str(error)
    assert error.exit_code == 1


@pytest.mark.parametrize(
    ("cpus", "workers", "nodes", "claimed"),
    [
        (1, 0, [4, 4], 1),
        (6, 0, [2, 4], 4),  # a worker that wants more than there is takes a whole node
        (3, 2, [2, 2], 2),
        (3, 4, [4], 1),
        (1, 8, [2, 2], 0.5),
    ],
)
def test_a_worker_claims_its_share(cpus: float, workers: int, nodes: list[int], claimed: float) -> None:
    found = demand(Resources(cpus=cpus), workers, [{"CPU": float(count), "memory": 8.0e9} for count in nodes])
    assert found.cpus == claimed
    assert sum(fits(found, {"CPU": float(count), "memory": 8.0e9}) for count in nodes) >= max(workers, 1)


@pytest.mark.long
def test_a_cluster_of_ones_own_ends_with_its_driver(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle, it leaves neither Ray's processes nor workers; the same command then finishes the pool.

    The workers are gone in seconds. The two agents of Ray's node idle for 60 s more: so long they try to tell the control service,
    which died with the driver, that their raylet is dead (upstream, `process_watcher.py`; no setting changes it).
    """
    monkeypatch.setenv("ENGINE_TEST_PHASE", json.dumps({"hang": [3]}))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with started(command(pool, "engine.workers=2")) as driver:
        wait_until(lambda: 3 in [line["part"] for line in notes(pool.path / "tmp" / "begun")] and bool(parts_of(pool)))
        below = {process: process.name() for process in psutil.Process(driver.pid).children(recursive=True)}
        os.kill(driver.pid, signal.SIGKILL)
    assert any("raylet" in name for name in below.values())
    wait_until(lambda: not [one for one in living(below) if "Agent" not in below[one]])
    wait_until(lambda: not living(below), 90)
    done = subprocess.run(program(pool, "engine.workers=2"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    assert not [line for line in done.stderr.splitlines() if not line.startswith("alone: ")], "Ray was heard"


@pytest.mark.long
def test_a_lost_cluster_is_one_line_and_the_same_command_resumes(pool: Pool, curate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", json.dumps({"hang": [3]}))
    with nodes(1) as cluster, started(command(pool, "engine.workers=1", f"engine.address={cluster.address}")) as driver:
        wait_until(lambda: 3 in [line["part"] for line in notes(pool.path / "tmp" / "begun")] and bool(parts_of(pool)))
        cluster.end_head()
        begun = time.monotonic()
        out, err = driver.communicate(timeout=90)
    assert driver.returncode == 1, out + err
    assert err.splitlines()[-1].startswith("lost the Ray cluster") and err.splitlines()[-1].endswith("the same command resumes"), err
    assert "Traceback" not in err
    print(f"noticed after {time.monotonic() - begun:.1f} s")
    kept = parts_of(pool)
    assert 3 not in kept
    assert curate("run", RECIPE, "--pool", pool.path, "input.path=none.csv").code == 0
    assert parts_of(pool) == [0, 1, 2, 3, 4]


@pytest.mark.long
def test_a_cluster_that_wants_a_token(pool: Pool, curate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ray start` makes it on a machine that has one: without the token a line that says what to set, with it the work is done."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "8f" * 32}
    address = f"{get_node_ip_address()}:{free_port()}"
    head = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={address.split(':')[1]}", "--num-cpus=1", "--block"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000"]
    monkeypatch.setenv("ENGINE_TEST_PHASE", "{}")
    given = [*program(pool, "engine.workers=1", f"engine.address={address}")]
    with subprocess.Popen([*head, *quiet], env={**os.environ, **token}, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            assert any("Ray runtime started" in line for line in cluster.stdout or ())
            refused = subprocess.run(given, capture_output=True, text=True, check=False)
            assert refused.returncode == 2, refused.stderr
            assert "if it wants a token, set RAY_AUTH_MODE=token" in refused.stderr and "Traceback" not in refused.stderr
            served = subprocess.run(given, env={**os.environ, **token}, capture_output=True, text=True, check=False)
            assert served.returncode == 0, served.stderr
        finally:
            cluster.terminate()
    assert parts_of(pool) == [0, 1, 2, 3, 4]
