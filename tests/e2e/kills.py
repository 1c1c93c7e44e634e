"""Kills of any process of a run, at random times, until it is done; the same for every engine.

A `Kind` says how an engine is chosen and where its processes are found; `sweep` kills so many of them and holds the pools
against one that nothing happened to.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import curate
from curate.fetch import broker
from curate.fetch.link import runtime_folder
from tests.e2e.reader import reading
from tests.e2e.runs import Site, command_line, finish, start, workers_of

KILLS_A_POOL = 6
Find = Callable[[int], list[psutil.Process]]
"""The processes of one sort that are alive now, for the driver with this id."""


def driver(pid: int) -> list[psutil.Process]:
    """The command itself."""
    return [psutil.Process(pid)] if psutil.pid_exists(pid) else []


def below(pid: int, *words: str) -> list[psutil.Process]:
    """All processes that a driver or its workers started, with the words in their command line."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if all(word in command_line(process) for word in words)]


def decoders(pid: int) -> list[psutil.Process]:
    """Children in which codecs run, and the keepers that fork them."""
    return below(pid, "curate.fetch.decoder")


def request_broker(pid: int) -> list[psutil.Process]:
    """The broker of this user's requests."""
    try:
        found = psutil.Process(int((runtime_folder() / broker.LOCK).read_text()))
        return [found] if "broker.py" in command_line(found) else []
    except (OSError, ValueError, psutil.NoSuchProcess):
        return []


@dataclass(frozen=True)
class Kind:
    """An engine under kill: the words of the command line that choose it, and its processes by what they are."""

    name: str
    words: tuple[str, ...]
    victims: Mapping[str, Find]


LOCAL = Kind("local", (), {"driver": driver, "worker": workers_of, "decoder": decoders, "broker": request_broker})


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to: what its pool holds, and how long the command took."""

    digest: Mapping[str, str]
    samples: tuple[str, ...]  # all ids, sorted
    seconds: float


@dataclass
class Tally:
    """What was killed, and what it cost."""

    killed: Counter[str] = field(default_factory=Counter)
    pools: int = 0
    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    def claim(self) -> str:
        """What follows from a sweep without a failure: the rule of three, at 95 % confidence."""
        count = self.killed.total()
        told = ", ".join(f"{number} {name}" for name, number in sorted(self.killed.items()))
        return (
            f"{count} kills ({told}) in {self.pools} pools: {self.lost} rows lost, {self.duplicated} duplicated, {self.unexpected} "
            f"unexpected, {len(self.wrong)} pools or looks wrong; a reader looked {self.looks} times. "
            f"With none wrong, a kill harms a pool with a chance below {3 / max(count, 1):.1%} (95 %, rule of three)"
        )


def samples_of(pool: Path) -> tuple[str, ...]:
    """The id of every row, sorted; twice where a row stands twice."""
    return tuple(line["sample_id"] for line in curate.open(pool).sql("SELECT sample_id FROM samples ORDER BY ALL").rows())


def undisturbed(site: Site, folder: Path, kind: Kind = LOCAL) -> Undisturbed:
    """Makes the pool that all others must equal."""
    begun = time.monotonic()
    finish(site.command(folder / "pool", *kind.words), folder / "log")
    seconds = time.monotonic() - begun
    pool = curate.open(folder / "pool")
    pool.verify().require()
    return Undisturbed(pool.digest(), samples_of(folder / "pool"), seconds)


def sweep(site: Site, wanted: Undisturbed, folder: Path, draw: random.Random, victims: list[str], kind: Kind = LOCAL) -> Tally:
    """Kills the victims one after the other, `KILLS_A_POOL` at most on one pool, and looks at each pool that is then finished."""
    tally, waiting = Tally(), list(victims)
    while waiting:
        tally.pools += 1
        pool, log = folder / f"pool{tally.pools}", folder / f"log{tally.pools}"
        with reading(pool) as reader:
            killed = _through(site.command(pool, *kind.words), log, draw, waiting[:KILLS_A_POOL], wanted.seconds, kind)
        tally.killed.update(killed)
        waiting = waiting[len(killed) :]
        _hold(tally, pool, wanted, reader.complaints)
        tally.looks += reader.looks
        assert tally.pools < 3 * len(victims) + 10, f"runs are done before their victims appear: {tally.claim()}"
    return tally


def _through(command: list[str], log: Path, draw: random.Random, victims: list[str], seconds: float, kind: Kind) -> list[str]:
    """Gives the command again and again until it is done, killing one victim after the other meanwhile; returns who was killed."""
    killed: list[str] = []
    while True:
        run = start(command, log)
        while run.poll() is None and len(killed) < len(victims):
            if _kill_one(run, kind.victims[victims[len(killed)]], draw, seconds):
                killed.append(victims[len(killed)])
        code = run.wait()
        if code == 0:
            return killed
        said = log.read_text()[-2000:]
        assert code == -signal.SIGKILL or (code == 1 and "same command" in said), f"exit code {code}: {said}"


def _kill_one(run: subprocess.Popen[bytes], find: Find, draw: random.Random, seconds: float) -> bool:
    """Waits for a victim to appear, then for a random time, and kills one that is there; False when the run was done first."""
    alive = _wait_for(run, find, time.monotonic() + 600)
    _wait_for(run, lambda pid: [], time.monotonic() + draw.random() ** 2 * seconds)
    alive = find(run.pid) or (_wait_for(run, find, time.monotonic() + 600) if alive else [])
    if run.poll() is not None or not alive:
        return False
    try:
        os.kill(draw.choice(alive).pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _wait_for(run: subprocess.Popen[bytes], find: Find, until: float) -> list[psutil.Process]:
    """Who is found first; nobody when the run ends or the time is over."""
    while run.poll() is None and time.monotonic() < until:
        found = find(run.pid)
        if found:
            return found
        time.sleep(0.01)
    return []


def _hold(tally: Tally, path: Path, wanted: Undisturbed, complaints: list[str]) -> None:
    pool, found, right = curate.open(path), Counter(samples_of(path)), Counter(wanted.samples)
    tally.lost += (right - found).total()
    tally.duplicated += sum(count - max(1, right[name]) for name, count in found.items() if name in right and count > right[name])
    tally.unexpected += sum(name not in right for name in found)
    verified = pool.verify()
    tally.wrong += complaints + ([] if verified.ok else [verified.text()])
    if pool.digest() != wanted.digest:
        fates = pool.sql("SELECT outcome, reason, count(*) AS rows FROM samples GROUP BY ALL ORDER BY ALL").rows()
        tally.wrong.append(f"{path.name}: digest {pool.digest()} is not {wanted.digest}; {fates}")
