"""Faults of this machine cost no row: too few descriptors, no network, a full disk."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.errors import LocalFault
from curate.fetch.breaker import Connections, Throttle
from curate.fetch.failures import MachineFault
from tests.fetch.conftest import FaultServer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system or to make a network of its own")


# -- descriptors

HOG = """
import json, resource, sys, time
from tests.fetch.conftest import fetch, quick
from tests.fetch.network_outage import once_under_way
port, limit, hold_seconds, give_up_seconds = int(sys.argv[1]), *map(float, sys.argv[2:])
urls = [f"http://127.0.0.{n}:{port}/slow/{n}" for n in range(1, 251)]
def hog():
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, int(limit)))  # what is open stays so, and there is no other
    time.sleep(hold_seconds)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
if hold_seconds:
    once_under_way(hog)
rows = fetch(urls, quick(local_fault_seconds=give_up_seconds))
print(json.dumps([(row["reason"], row["attempts"], row["sha256"]) for row in rows]))
"""


def hogged(server: FaultServer, *, limit: int, hold_seconds: float = 0.0, give_up_seconds: float = 60.0) -> tuple[int, str, str]:
    """Fetches 250 slow pictures in a process that may open `limit` descriptors, or none at all for a while."""
    arguments = [str(each) for each in (server.port, limit, hold_seconds, give_up_seconds)]
    done = subprocess.run([sys.executable, "-c", HOG, *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("limit", "hold_seconds"), [(64, 0.0), (200, 1.5)])
def test_too_few_descriptors_slow_a_fetch_down_and_fail_no_row(server: FaultServer, limit: int, hold_seconds: float) -> None:
    code, out, err = hogged(server, limit=limit, hold_seconds=hold_seconds)
    assert code == 0, err
    rows = json.loads(out)
    assert [(reason, attempts) for reason, attempts, _ in rows] == [(None, 1)] * 250
    assert len({sha256 for _, _, sha256 in rows}) == 250


def test_descriptors_that_stay_away_stop_the_run_with_one_line(server: FaultServer) -> None:
    code, _, err = hogged(server, limit=100, hold_seconds=60.0, give_up_seconds=1.0)
    assert code != 0
    assert "LocalFault: cannot open a connection: Too many open files; raise the limit (ulimit -n)" in err


def test_a_shortage_lowers_how_many_run_at_once_and_success_raises_it_again() -> None:
    async def work() -> list[int]:
        throttle = Throttle(100, 30.0)
        limits = [throttle.limit]
        with throttle.request():
            for _ in range(50):
                throttle._open = 50
                await throttle.shortage(OSError(errno.EMFILE, "Too many open files"))
                limits.append(throttle.limit)
                if throttle.limit == 1:
                    break
            throttle._open = 1
        for _ in range(30):
            throttle.succeeded()
        return [*limits, throttle.limit]

    limits = asyncio.run(work())
    assert limits[:3] == [100, 35, 24] and limits[-2] == 1 and 5 <= limits[-1] <= 10


def test_an_address_without_a_way_is_the_rows_fault_while_the_network_is_there() -> None:
    async def work() -> bool:
        connections = Connections(8, 64, 30.0)
        return await connections.explain(MachineFault(OSError(errno.EHOSTUNREACH, "No route to host")), time.monotonic())

    assert asyncio.run(work()) is False


# -- network


@needs_root
def test_a_network_that_goes_down_for_a_while_fails_no_row() -> None:
    command = ["unshare", "-n", sys.executable, "-m", "tests.fetch.network_outage", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "network is down" in done.stderr and "over after" in done.stderr
    assert Counter(row["reason"] for row in json.loads(done.stdout)) == {None: 600}
    assert {row["attempts"] for row in json.loads(done.stdout)} == {1}


# -- disk

_PROGRESS = re.compile(r"^[a-z_ ]+: .*, \d+ s\b")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    resize(folder, "64k", "size=64k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: str, options: str = "") -> None:
    """Gives the file system another size, or makes it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options or f"remount,size={size}", "tmpfs", str(folder)], check=True)


def ingest(server: FaultServer, folder: Path, pool: Path, descriptors: int = 1024) -> tuple[int, list[str]]:
    """`curate run ingest` as a process on 60 rows in 4 parts; exit code and what it said beside its progress."""
    listed = folder / "list.csv"
    with listed.open("w", newline="") as stream:
        rows = [(server.url(f"/image/{n}", f"127.0.1.{n}"), f"picture number {n} of many") for n in range(1, 61)]
        csv.writer(stream).writerows([("url", "caption"), *rows])
    said = (
        f"input.path={listed}", "plan.rows_per_part=15", 'fetch.allow_addresses=["127.0.0.0/8"]', "fetch.host_interval_seconds=0.01",
        "filter.where=image_min_side >= 20", "engine.workers=2", "report.enabled=false",
    )  # fmt: skip
    limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
    command = [*limited, sys.executable, "-m", "curate", "run", "ingest", "--pool", str(pool), *said]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, [line for line in done.stderr.splitlines() if line.strip() and not _PROGRESS.match(line)]


def digest(pool: Path) -> str:
    return subprocess.run([sys.executable, "-m", "curate", "digest", str(pool)], capture_output=True, text=True, check=True).stdout


def grow(server: FaultServer, folder: Path, disk: Path, sizes: list[str]) -> None:
    """The same command with 64 descriptors on a disk that grows: one clear line each time, then what a big machine had given."""
    codes = []
    for size in sizes:
        resize(disk, size)
        code, said = ingest(server, folder, disk / "pool", descriptors=64)
        codes.append(code)
        assert code in (0, 1), said
        if code == 1:
            assert len(said) == 1 and re.search(r"No space left|no room at", said[0]) and "same command again" in said[0], said
    assert codes == sorted(codes, reverse=True) and codes[0] == 1 and codes[-1] == 0
    code, said = ingest(server, folder, folder / "roomy")
    assert (code, said) == (0, [])
    assert digest(disk / "pool") == digest(folder / "roomy")


@needs_root
@pytest.mark.long
def test_a_full_disk_stops_with_one_line_and_the_run_goes_on_when_it_has_grown(server: FaultServer, tmp_path: Path, disk: Path) -> None:
    grow(server, tmp_path, disk, ["1500k", "16m"])


@needs_root
@pytest.mark.long
@pytest.mark.timeout(1200)  # 36 whole runs
def test_a_disk_that_grows_in_small_steps(server: FaultServer, tmp_path: Path, disk: Path) -> None:
    grow(server, tmp_path, disk, [f"{size}k" for size in (64, *range(100, 2500, 100), *range(2500, 5000, 250))] + ["16m"])


def test_a_local_fault_tells_what_to_do() -> None:
    with pytest.raises(LocalFault, match="ulimit -n"):
        asyncio.run(Throttle(1, 0.0).shortage(OSError(errno.EMFILE, "Too many open files")))
