"""Politeness by the server's own log: four fetch stages in two processes keep every budget, whoever dies meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate.fetch import broker
from curate.fetch.link import runtime_folder


@dataclass
class LoggedServer:
    """The server's port and log."""

    port: int
    path: Path

    def urls(self, addresses: int, each: int, tag: str, waits: tuple[int, ...] = (0, 500, 30, 500)) -> list[str]:
        """`each` URLs at each of so many addresses, which take their time in turn."""
        numbered = itertools.product(range(each), range(1, addresses + 1))
        return [f"http://127.0.77.{host}:{self.port}/wait/{waits[(n + host) % len(waits)]}/{tag}{n}" for n, host in numbered]

    def log(self) -> list[dict[str, object]]:
        lines = self.path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for(self, requests: int) -> None:
        """Returns when so many have arrived."""
        deadline = time.monotonic() + 60
        while len(self.log()) < requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def violations(self, interval_seconds: float, in_flight: int = 2) -> list[str]:
        """What the log says against us."""
        found = [f"{line['open']} open at {line['address']}" for line in self.log() if int(str(line["open"])) > in_flight]
        starts = defaultdict(list)
        for line in self.log():
            starts[line["address"]].append(float(str(line["time"])))
        for address, times in starts.items():
            found += [f"{b - a:.4f} s at {address}" for a, b in itertools.pairwise(sorted(times)) if b - a < interval_seconds]
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoggedServer]:
    command = [sys.executable, "-m", "tests.fetch.polite_server", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield LoggedServer(int(process.stdout.readline()), tmp_path / "log")
        process.kill()


def worker(lists: list[list[str]], **settings: object) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-m", "tests.fetch.polite_worker"], stdin=-1, stdout=-1, text=True)
    assert process.stdin is not None
    shared = {"host_in_flight": 2, "patience_seconds": 1000, "total_seconds": 20, "robots": True, "tdm_file": True}
    json.dump({"settings": shared | settings, "lists": lists}, process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def reasons(process: subprocess.Popen[str]) -> list[str | None]:
    """Of all its rows; waits for it."""
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    return [reason for rows in json.loads(out) for reason in rows]


def broker_pid() -> int:
    return int((runtime_folder() / broker.LOCK).read_text())


def test_four_stages_in_two_processes_keep_every_budget(server: LoggedServer) -> None:
    workers = [worker([server.urls(4, 3, f"{w}{stage}-") for stage in "ab"], host_interval_seconds=0.1) for w in "AB"]
    assert [reasons(process) for process in workers] == [[None] * 24] * 2
    assert len(server.log()) == 4 * (4 * 3 + 2)  # each address: its pictures, robots.txt and tdmrep.json once
    assert server.violations(0.1) == []


def test_the_defaults_are_two_open_and_half_a_second(server: LoggedServer) -> None:
    defaults = {"host_in_flight": 2, "host_interval_seconds": 0.5}
    workers = [worker([server.urls(2, 1, f"{w}{stage}-", (1700,)) for stage in "ab"], **defaults) for w in "AB"]
    assert [reasons(process) for process in workers] == [[None] * 4] * 2
    assert len(server.log()) == 2 * (4 + 2)
    assert server.violations(0.5) == []


def test_a_worker_that_is_killed_gives_back_what_it_held(server: LoggedServer) -> None:
    doomed, other = (worker([server.urls(3, 6, f"{w}{stage}-", (150, 350)) for stage in "ab"], host_interval_seconds=0.1) for w in "AB")
    server.wait_for(20)
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    assert reasons(other) == [None] * 36
    assert server.violations(0.1) == []


def test_a_broker_that_is_killed_is_replaced_and_no_budget_exceeded(server: LoggedServer) -> None:
    workers = [worker([server.urls(3, 4, f"{w}{stage}-", (0, 150, 400)) for stage in "ab"], host_interval_seconds=0.1) for w in "AB"]
    server.wait_for(16)
    first = broker_pid()
    os.kill(first, signal.SIGKILL)
    assert [reasons(process) for process in workers] == [[None] * 24] * 2
    assert broker_pid() != first
    assert len(server.log()) == 3 * (4 * 4 + 2)  # nothing was asked for twice
    assert server.violations(0.1) == []
