"""A run killed at each of its system calls that touch the pool: whatever the moment, the pool is sound and the same command ends it.

strace kills a small run at the n-th call of a kind, for every n that an undisturbed run has (the short form: a few, drawn by
seed). From the undisturbed run's trace it is also checked that what is published was made durable first.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import curate
from tests.e2e.reader import PUBLISHED, Reader
from tests.e2e.traced import Call, Traced

pytestmark = pytest.mark.skipif(not Traced.works(), reason="needs strace, of the Debian package strace, and the right to trace")

FEW = 6


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with Traced.started(tmp_path_factory.mktemp("commits")) as found:
        yield found


@pytest.fixture(scope="module")
def calm(traced: Traced) -> Path:
    """The pool of a run that was only watched; its traces lie beside it."""
    assert traced.watch("calm") == 0
    return traced.pool("calm")


def state(pool: Path) -> tuple[object, ...]:
    """Digest, and the names of all published files, which carry their hashes."""
    opened = curate.open(pool)
    opened.verify().require()
    names = sorted(str(path.relative_to(pool)) for pattern in (*PUBLISHED, "shards/*/*.tar") for path in pool.glob(pattern))
    return opened.digest(), names


def killed_at(traced: Traced, calm: Path, call: str, number: int, thread: str) -> str:
    """Kills a run at one call; returns where, or an empty text when the run was done before it came to that call."""
    name = f"{thread}-{call}-{number}"
    where = traced.kill(name, call, number, thread)
    pool = traced.pool(name)
    reader = Reader(pool)
    reader.look()
    assert reader.complaints == [], f"{name}, at {where}"
    if (pool / "pool.json").exists():
        curate.open(pool).verify().require()
    assert traced.run(name) == 0, f"{name}, at {where}"
    assert state(pool) == state(calm), f"{name}, at {where}"
    assert [path.name for path in (pool / "tmp").iterdir()] == [], f"{name}, at {where}"
    traced.forget(name)
    return where


def test_a_run_killed_at_some_of_its_calls_ends_in_the_same_pool(traced: Traced, calm: Path) -> None:
    points = random.Random(3).sample(traced.points("calm"), FEW)
    where = [killed_at(traced, calm, *point) for point in points]
    print("\n" + "\n".join(where))
    assert sum(bool(place) for place in where) >= FEW - 2


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_a_run_killed_at_each_of_its_calls_ends_in_the_same_pool(traced: Traced, calm: Path) -> None:
    points = traced.points("calm")
    where = [killed_at(traced, calm, *point) for point in points]
    met = Counter(re.sub(r"[0-9a-f]{8,}|\d+", "N", place) for place in where if place)
    print(f"\n{sum(map(bool, where))} of {len(points)} points, {len(met)} different: {dict(met.most_common(60))}")
    assert sum(map(bool, where)) > 0.9 * len(points)


# -- the order of things


def test_what_is_published_is_durable_before_it_has_its_name_and_committed_after(traced: Traced, calm: Path) -> None:
    """For every published file: written, fsync, rename, fsync of the folder, and then the commit that names it."""
    calls = traced.trace("calm")
    published = [path for pattern in PUBLISHED for path in calm.glob(pattern)]
    assert len(published) >= 10
    for path in published:
        (renamed,) = [at for at, call in enumerate(calls) if call.name.startswith("rename") and call.target == str(path)]
        temporary, folder = calls[renamed].path, str(path.parent)
        written = [at for at, call in enumerate(calls) if call.path == temporary and "write" in call.name]
        synced = [at for at, call in enumerate(calls) if call.path == temporary and call.name == "fsync"]
        assert written and synced and max(written) < max(synced) < renamed, path.name
        folders = [at for at, call in enumerate(calls) if call.path == folder and call.name == "fsync" and at > renamed]
        assert folders, path.name
        if path.suffix == ".parquet":
            assert folders[0] < committed(calm, calls, path), path.name


def committed(pool: Path, calls: list[Call], path: Path) -> int:
    """Where in the trace the log file came to its name that adds a data file; it is made durable as well."""
    (log,) = [entry for entry in sorted(path.parent.glob("_delta_log/*.json")) if f'"add":{{"path":"{path.name}"' in entry.read_text()]
    named = [at for at, call in enumerate(calls) if call.target == str(log)]
    assert named, log.name
    for synced in (str(log), str(log.parent)):
        assert [at for at, call in enumerate(calls) if call.path == synced and call.name == "fsync" and at > named[0]], log.name
    return named[0]
