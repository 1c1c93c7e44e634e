"""A run as its user starts it: the command line in a process of its own, on a served corpus whose answers never change."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
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

ROWS, ROWS_PER_PART, PARTS = 60, 10, 6


@dataclass(frozen=True)
class Site:
    """A served corpus and the settings with which it is ingested."""

    server: Server
    list_path: Path

    def said(self) -> list[str]:
        """Settings of a recipe on this corpus: fetched politely, scored, deduplicated, decided, packed."""
        values = {
            "input.path": self.list_path,
            "plan.rows_per_part": ROWS_PER_PART,
            "fetch.allow_addresses": '["127.0.0.0/8"]',
            "fetch.host_interval_seconds": 0.1,
            "filter.where": "image_min_side >= 200",
            "pack.shard_samples": 20,
            "report.enabled": "false",
            "engine.workers": 2,
            "engine.wave_parts": 2,
        }
        return [f"{key}={value}" for key, value in values.items()]

    def command(self, pool: Path | str, *overrides: str) -> list[str]:
        """`curate run ingest` on this corpus."""
        return [sys.executable, "-m", "curate", "run", "ingest", "--pool", str(pool), *self.said(), *overrides]


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Serves some scenes on a few hosts; each answer is a function of the URL alone."""
    corpus = build(folder / "corpus", ScenesSettings(rows=ROWS, seed=7))
    with Server(corpus, folder / "server.log", ServerSettings(count_attempts=False, hosts=20)) as server:
        yield Site(server, write_list([corpus], folder, server.url))


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
    return [child for child in children if "spawn_main" in command_line(child)]


def command_line(process: psutil.Process) -> str:
    """The words with which a process was started; none when it is gone."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return ""


def shards_of(pool: Path) -> dict[str, str]:
    """Each packed file's hash; an index names its tars, and both are the same bytes everywhere."""
    files = [path for path in sorted((pool / "shards").rglob("*")) if path.is_file()]
    assert any(path.suffix == ".tar" for path in files)
    return {str(path.relative_to(pool)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
