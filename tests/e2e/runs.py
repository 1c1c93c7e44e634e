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


def kill_something(driver: subprocess.Popen[bytes], draw: random.Random) -> str:
    """SIGKILL to the driver or to one of its workers; says which."""
    workers = workers_of(driver.pid)
    if workers and draw.random() < 0.5:
        victim = draw.choice(workers)
        os.kill(victim.pid, signal.SIGKILL)
        return "worker"
    driver.kill()
    driver.wait()
    return "driver"


def run_through_kills(command: list[str], log: Path, draw: random.Random, kills: int, span_seconds: float) -> list[str]:
    """Starts the command again and again, killing something after a random time, `kills` times; then lets it finish."""
    killed: list[str] = []
    while len(killed) < kills:
        driver = start(command, log)
        while len(killed) < kills:
            try:
                code = driver.wait(draw.uniform(0.3, span_seconds))
            except subprocess.TimeoutExpired:
                killed.append(kill_something(driver, draw))
                if killed[-1] == "driver":
                    break
                continue
            assert code == 0, f"exit code {code}: {log.read_text()[-2000:]}"
            return killed  # it was done before the next kill came
        else:
            assert driver.wait() == 0, log.read_text()[-2000:]
            return killed
    finish(command, log)
    return killed


def no_process_left(driver: int, seconds: float = 10.0) -> bool:
    """Whether no worker of a dead driver is alive; workers get a moment to notice."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not workers_of(driver):
            return True
        time.sleep(0.1)
    return False
