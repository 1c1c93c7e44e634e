"""SIGKILL at any point of a takedown or purge; the same command again ends in the same pool."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import curate as library
from tests.removal.handmade import PARTS, address

SELF_KILLING = """
import os, signal, sys
from curate import store
from curate.removal import takedown
from curate.cli.app import execute
left, plain, open_at = [int(sys.argv[1])], store._sync, []
takedown.BATCH_PARTS = 1  # so that there are several

def counted(path, flags):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, flags)
    if os.path.exists(os.path.join(sys.argv[3], "documents/removal.json")):
        open_at.append(int(sys.argv[1]) - left[0])

store._sync = counted  # every durable step passes here: a point to be killed at
code = execute(sys.argv[2:])
print(*open_at[:1], *open_at[-1:], int(sys.argv[1]) - left[0], file=sys.stderr)
sys.exit(code)
"""


def run(point: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The real command, killed at its `point`-th durable step."""
    command = [sys.executable, "-c", SELF_KILLING, str(point), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def state(pool: Path) -> tuple[dict[str, str], set[str]]:
    """Digests, and names of all files with a content of their own; what holds a time or an epoch is left out."""
    timed = ("_delta_log", "documents/", "takedowns/", "purges/", "leases/", "tables/suppressed", "subsets/")
    names = {str(path.relative_to(pool)) for path in pool.rglob("*") if path.is_file()}
    return library.open(pool).digest(), {name for name in names if not any(part in name for part in timed)}


LIST = f"{address('pair')}\n{address('copied')}\n{PARTS[0][2].sample_id}\n"
"""A URL with its captions in two parts, one whose bytes other URLs have, and a row whose image another part goes on using."""
TAKE = ["takedown", "POOL", "--list", "LIST", "--yes"]
PURGE = ["purge", "POOL", "--where", "outcome = 'dropped' AND tar_file IS NOT NULL", "--yes"]


@pytest.mark.parametrize(("arguments", "points"), [(TAKE, 2), (PURGE, 1)], ids=["takedown", "purge"])
def test_a_removal_that_is_killed_and_given_again_ends_the_same(
    arguments: list[str], points: int, borrowing_pool: Path, tmp_path: Path, curate: Callable
) -> None:
    sweep(arguments, points, borrowing_pool, tmp_path, curate)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arguments", [TAKE, PURGE], ids=["takedown", "purge"])
def test_kill_sweep(arguments: list[str], borrowing_pool: Path, tmp_path: Path, curate: Callable) -> None:
    """Every other durable step."""
    sweep(arguments, None, borrowing_pool, tmp_path, curate)


def sweep(arguments: list[str], points: int | None, source: Path, folder: Path, curate: Callable) -> None:
    """Kills the command at so many of its durable steps, or at every other one, each on a new copy, and gives it again."""

    def copy(name: str) -> tuple[Path, list[str]]:
        pool = Path(shutil.copytree(source, folder / name))
        return pool, [{"POOL": str(pool), "LIST": str(folder / "list.txt")}.get(word, word) for word in arguments]

    (folder / "list.txt").write_text(LIST)

    undisturbed, said = copy("undisturbed")
    done = run(1 << 30, said)
    assert done.returncode == 0, done.stderr
    first, last, steps = map(int, done.stderr.split()[-3:])  # of the steps while the removal is open, and how many there are
    wanted, unfinished = state(undisturbed), 0
    for number in [first + (last - first) * (1 + at) // (points + 1) for at in range(points)] if points else range(1, steps, 2):
        pool, said = copy(f"killed{number}")
        assert run(number, said).returncode == -signal.SIGKILL
        unfinished += "interrupted" in curate("status", pool).out
        again = curate(*said)
        assert again.code == 0, again.err
        assert state(pool) == wanted
        assert library.open(pool).verify().ok
        shutil.rmtree(pool)
    assert unfinished, "the points should fall into the middle"
