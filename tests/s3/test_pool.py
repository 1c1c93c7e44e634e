"""A pool in an object store is the pool that a disk would hold, also when the store fails one request in twenty."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate import open as open_pool
from tests.conftest import Said
from tests.e2e.runs import Site, ask, finish, site, start, workers_of
from tests.s3.server import KINDS, Proxy
from tests.score.pools import tiny_clip


@dataclass(frozen=True)
class Local:
    """A pool on a disk: what it holds, and what a query says of it."""

    digest: dict[str, object]
    rows: list[dict[str, object]]


QUESTION = "SELECT reason, count(*) AS n, round(sum(clip_score), 4) AS s FROM samples GROUP BY ALL ORDER BY ALL"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("s3")
    tiny_clip(folder / "tiny")
    with site(folder) as found:
        yield found


@pytest.fixture(scope="module")
def local(served: Site, tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("local")
    finish(command(served, folder / "pool"), folder / "log")
    return Local(ask("digest", folder / "pool"), ask("sql", folder / "pool", QUESTION))


def command(served: Site, pool: Path | str) -> list[str]:
    """Three parts, scored by a small CLIP too, so that there are embeddings."""
    clip = ["score.clip.model=tiny", f"score.clip.weights={served.list_path.parent / 'tiny'}"]
    return served.command(pool, "plan.rows_per_part=20", "plan.min_parts=1", "engine.wave_parts=256", *clip)


def test_the_pool_equals_the_local_one_though_one_request_in_twenty_fails(
    served: Site, local: Local, s3: Proxy, prefix: str, tmp_path: Path, curate: Callable[..., Said]
) -> None:
    with s3.failing(0.05, seed=4):
        finish(command(served, f"{prefix}/pool"), tmp_path / "log")
        pool = open_pool(f"{prefix}/pool")
        digest, rows, failed = pool.digest(), pool.sql(QUESTION).rows(), s3.traffic().failed
    assert len(failed) == len(KINDS) and sum(failed.values()) > 20, failed
    assert digest == local.digest
    assert rows == local.rows
    assert pool.verify().ok
    assert "kept" in curate("status", f"{prefix}/pool").out
    assert curate("funnel", f"{prefix}/pool").code == 0
    assert not list((tmp_path / "scratch").rglob("*.*")), "nothing is left on this machine"


@pytest.mark.long
def test_a_killed_driver_resumes_to_the_same_pool(served: Site, local: Local, s3: Proxy, prefix: str, tmp_path: Path) -> None:
    driver = start(command(served, f"{prefix}/pool"), tmp_path / "log")
    until = time.monotonic() + 60
    while not workers_of(driver.pid) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    finish(command(served, f"{prefix}/pool"), tmp_path / "log")
    assert ask("digest", f"{prefix}/pool") == local.digest


@pytest.mark.long
def test_of_two_drivers_at_once_one_wins(served: Site, local: Local, s3: Proxy, prefix: str, tmp_path: Path) -> None:
    drivers = [start(command(served, f"{prefix}/pool"), tmp_path / f"log{number}") for number in range(2)]
    codes = sorted(driver.wait() for driver in drivers)
    said = (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    assert codes == [0, 1], said[-3000:]
    assert "another run" in said or "is writing table" in said or "took over" in said
    assert ask("digest", f"{prefix}/pool") == local.digest
