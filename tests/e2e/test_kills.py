"""Kill anything at any time, then give the same command: the pool is the same as if nothing had happened.

`make test` runs a short form; `make kill-sweep` kills 20 pools at random points and prints the bound that follows.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.runs import PARTS, ROWS, Site, ask, finish, run_through_kills, site, start, workers_of
from tests.score.pools import tiny_clip

VICTIMS = ["driver", "worker", "driver", "worker", "driver", "worker"]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to: what its pool holds, and how long the command took."""

    digest: dict[str, object]
    seconds: float


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kills")
    with site(folder, tiny_clip(folder / "tiny")) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(served: Site, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder, begun = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    finish(served.command(folder / "pool"), folder / "log")
    seconds = time.monotonic() - begun
    assert ask("sql", folder / "pool", "SELECT count(*) AS n, count(DISTINCT part) AS parts FROM rows") == [{"n": ROWS, "parts": PARTS}]
    return Undisturbed(digest(folder / "pool"), seconds)


def digest(pool: Path) -> dict[str, object]:
    """The digest lines of a pool that verifies."""
    assert ask("verify", pool)["ok"]
    return ask("digest", pool)


def test_a_run_killed_again_and_again_ends_in_the_same_pool(served: Site, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Six kills of driver and workers on one pool, the same command after each dead driver."""
    span = undisturbed.seconds / 2
    assert run_through_kills(served.command(tmp_path / "pool"), tmp_path / "log", random.Random(1), VICTIMS, span) >= 4
    assert digest(tmp_path / "pool") == undisturbed.digest


def test_one_worker_gives_the_same_pool_as_two(served: Site, undisturbed: Undisturbed, tmp_path: Path) -> None:
    finish(served.command(tmp_path / "pool", "engine.workers=1", "engine.wave_parts=256"), tmp_path / "log")
    assert digest(tmp_path / "pool") == undisturbed.digest


def test_of_two_drivers_at_once_one_wins_and_the_other_exits_1(served: Site, undisturbed: Undisturbed, tmp_path: Path) -> None:
    command = served.command(tmp_path / "pool")
    drivers = [start(command, tmp_path / f"log{number}") for number in range(2)]
    codes = sorted(driver.wait() for driver in drivers)
    said = (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    assert codes == [0, 1], said[-3000:]
    assert "another run" in said or "is writing table" in said or "took over" in said
    assert digest(tmp_path / "pool") == undisturbed.digest


def test_a_stopped_driver_that_was_replaced_exits_1_when_it_goes_on(served: Site, undisturbed: Undisturbed, tmp_path: Path) -> None:
    command = served.command(tmp_path / "pool", "engine.lease_seconds=1.5")
    first = start(command, tmp_path / "first")
    until = time.monotonic() + 60
    while not workers_of(first.pid) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(2.0)
    finish(command, tmp_path / "second")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 1, (tmp_path / "first").read_text()[-2000:]
    assert "took over" in (tmp_path / "first").read_text()
    assert digest(tmp_path / "pool") == undisturbed.digest


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(20))
def test_kill_sweep(served: Site, undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    """20 pools, each killed once at a random point of its run: without a failure the chance is below 15 % (95 %, rule of three)."""
    draw = random.Random(1000 + seed)
    victim, pools = draw.choice(["driver", "worker"]), iter(tmp_path / f"pool{number}" for number in range(9))
    pool = next(pools)
    while not run_through_kills(served.command(pool), tmp_path / "log", draw, [victim], undisturbed.seconds):
        pool = next(pools)  # it was done before the kill came: that is no kill point
    assert digest(pool) == undisturbed.digest
    print(f"pool {seed}: {victim} killed")
