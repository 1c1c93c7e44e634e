"""A run as its user starts it: the command line in a process of its own, on a served corpus whose answers never change."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from curate.demo.corpus import write_list
from curate.demo.scenes import build
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings

HOST_FILES = {"/robots.txt", "/.well-known/tdmrep.json"}
"""What every host is asked for beside its pictures."""

ROWS, ROWS_PER_PART, PARTS = 400, 50, 8


@dataclass(frozen=True)
class Site:
    """A served corpus and the settings with which it is ingested."""

    server: Server
    list_path: Path
    clip_folder: Path

    def command(self, pool: Path, *overrides: str) -> list[str]:
        """`curate run ingest` on this corpus: scored by a small CLIP, deduplicated, decided, packed."""
        said = {
            "input.path": self.list_path,
            "plan.rows_per_part": ROWS_PER_PART,
            "fetch.allow_addresses": '["127.0.0.0/8"]',
            "fetch.host_interval_seconds": 0.02,
            "score.clip.model": "tiny",
            "score.clip.weights": self.clip_folder,
            "filter.where": "image_min_side >= 200 AND clip_score > -0.9",
            "pack.shard_samples": 50,
            "report.enabled": "false",
            "engine.workers": 2,
            "engine.wave_parts": 2,
        }
        arguments = [f"{key}={value}" for key, value in said.items()]
        return [sys.executable, "-m", "curate", "run", "ingest", "--pool", str(pool), *arguments, *overrides]


@contextmanager
def site(folder: Path, clip_folder: Path) -> Iterator[Site]:
    """Serves 400 scenes; each answer is a function of the URL alone."""
    corpus = build(folder / "corpus", ScenesSettings(rows=ROWS, seed=7))
    with Server(corpus, folder / "server.log", ServerSettings(count_attempts=False)) as server:
        yield Site(server, write_list([corpus], folder, server.url), clip_folder)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a command; what it says goes to `log`."""
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)


def finish(command: list[str], log: Path) -> None:
    """Runs a command to its good end."""
    code = start(command, log).wait()
    assert code == 0, f"exit code {code}: {log.read_text()[-2000:]}"


def ask(*arguments: object) -> Any:
    """The JSON answer of `curate ARGUMENTS --format json`; the command must end well."""
    command = [sys.executable, "-m", "curate", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def workers_of(driver: int) -> list[psutil.Process]:
    """The living worker processes of a driver."""
    try:
        children = psutil.Process(driver).children()
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if "spawn_main" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def run_through_kills(command: list[str], log: Path, draw: random.Random, victims: list[str], span_seconds: float) -> int:
    """Gives the command again and again, each time killing the next victim after a random time; then lets it finish.

    A victim is "driver" or "worker"; a worker's death must not end the run. Returns how many were killed: fewer than
    asked when the run was done first.
    """
    killed = 0
    while killed < len(victims):
        driver = start(command, log)
        until = time.monotonic() + draw.uniform(0.3, span_seconds)
        while driver.poll() is None and killed < len(victims):
            time.sleep(0.02)
            if time.monotonic() >= until and _killed(driver, victims[killed], draw):
                killed += 1
                until = time.monotonic() + draw.uniform(0.3, span_seconds)
        code = driver.wait()
        assert code in (0, -signal.SIGKILL), f"exit code {code}: {log.read_text()[-2000:]}"
        if code == 0:
            return killed
    finish(command, log)
    return killed


def _killed(driver: subprocess.Popen[bytes], victim: str, draw: random.Random) -> bool:
    """Kills the driver, or one of its workers if there is one right now."""
    workers = workers_of(driver.pid)
    if victim == "worker" and not workers:
        return False
    os.kill(draw.choice(workers).pid if victim == "worker" else driver.pid, signal.SIGKILL)
    return True
