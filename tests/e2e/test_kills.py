"""Kill anything at any time, then give the same command: the pool is the same as if nothing had happened.

`make test` runs a short form; `make kill-sweep` kills 300 processes (CURATE_KILLS) and prints the bound that follows.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import curate
from tests.e2e.kills import LOCAL, Undisturbed, sweep, undisturbed
from tests.e2e.runs import PARTS, ROWS, Site, finish, site, start, workers_of

FEW = ["driver", "worker", "decoder", "broker", "driver", "worker"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("kills")) as found:
        yield found


@pytest.fixture(scope="module")
def calm(served: Site, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("calm")
    found = undisturbed(served, folder)
    (counts,) = (
        curate.open(folder / "pool")
        .sql("SELECT count(*) AS n, count(DISTINCT part) AS parts, count(*) FILTER (keep) AS kept FROM samples")
        .rows()
    )
    assert (counts["n"], counts["parts"]) == (ROWS, PARTS) and counts["kept"] > ROWS / 3
    return found


def digest(pool: Path) -> dict[str, str]:
    """The digest lines of a pool that verifies."""
    opened = curate.open(pool)
    opened.verify().require()
    return opened.digest()


def test_runs_killed_again_and_again_end_in_the_same_pool(served: Site, calm: Undisturbed, tmp_path: Path) -> None:
    """The short form: six kills, every sort of process."""
    found = sweep(served, calm, tmp_path, random.Random(1), FEW)
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
    assert found.killed.total() == len(FEW) and found.looks > 10


def test_of_two_drivers_at_once_one_wins_and_the_other_exits_1(served: Site, calm: Undisturbed, tmp_path: Path) -> None:
    command = served.command(tmp_path / "pool")
    drivers = [start(command, tmp_path / f"log{number}") for number in range(2)]
    codes = sorted(driver.wait() for driver in drivers)
    said = (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    assert codes == [0, 1], said[-3000:]
    assert "another run" in said or "is writing table" in said or "took over" in said
    assert digest(tmp_path / "pool") == calm.digest


def test_a_stopped_driver_that_was_replaced_exits_1_when_it_goes_on(served: Site, calm: Undisturbed, tmp_path: Path) -> None:
    command = served.command(tmp_path / "pool", "engine.lease_seconds=1", "engine.workers=1", "engine.wave_parts=256")
    first = start(command, tmp_path / "first")
    until = time.monotonic() + 60
    while not workers_of(first.pid) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(1.2)
    finish(command, tmp_path / "second")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 1, (tmp_path / "first").read_text()[-2000:]
    assert "took over" in (tmp_path / "first").read_text()
    assert digest(tmp_path / "pool") == calm.digest, "one worker and one wave give the same pool as well"


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_kill_sweep(served: Site, calm: Undisturbed, tmp_path: Path) -> None:
    """So many kills at random points of random processes; the claim that is printed is the bound that follows."""
    draw = random.Random(int(os.environ.get("CURATE_KILL_SEED", "4")))
    victims = draw.choices(sorted(LOCAL.victims), k=int(os.environ.get("CURATE_KILLS", "300")))
    found = sweep(served, calm, tmp_path, draw, victims)
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
