"""What a sweep deletes, and all that it spares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import curate as package
from curate.engines.base import EngineSettings
from curate.lease import claim
from curate.removal.leftovers import sweep
from curate.run import stale_parts
from curate.store import Pool
from curate.work import commit, work
from tests.catalog import pools
from tests.engines.phases import Groups

ENGINE = EngineSettings(workers=1)
OLD = time.time() - 3 * 86_400


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return pools.build(tmp_path / "pool")


def make_old(pool: Pool) -> None:
    for path in pool.path.rglob("*"):
        os.utime(path, (OLD, OLD))


def all_files(pool: Pool) -> set[Path]:
    return {path for path in pool.path.rglob("*") if path.is_file()}


def test_a_pool_in_which_everything_is_named_loses_nothing(pool: Pool) -> None:
    """Older versions and what subsets pin as well."""
    with claim(pool, {}) as run:
        fetched = pool.snapshot("fetched")
        run.add("fetched", fetched.schema)
        run.commit("fetched", [pool.write_part("fetched", 0, fetched.read(parts=[0]), "another basis")])
    before, digest = all_files(pool), package.open(pool.path).digest()
    make_old(pool)
    assert sweep(pool).files == 0
    assert all_files(pool) == before and package.open(pool.path).digest() == digest
    assert pool.snapshot("fetched", fetched.version).read().num_rows > 0


def leave_behind(pool: Pool) -> list[Path]:
    """Of killed runs: a table file, a tar and embeddings without a commit, one never published, half a report, a table without a log."""
    (task, *_) = stale_parts(pool, Groups())[0]
    orphan = pool.write_part("fetched", task.part, pool.snapshot("fetched").read(parts=[task.part]), "of a run that was killed")
    made = [pool.table_folder("fetched") / orphan.path]
    for folder, suffix in (("tars", ".tar"), ("embeddings/base", ".npy")):
        temporary = pool.temporary(suffix)
        temporary.write_bytes(os.urandom(100))
        made.append(pool.path / pool.publish(temporary, folder, "00000"))
    made += [pool.path / "tmp" / "elsewhere.77.abc.tar", pool.path / "reports" / "groups_alone" / f"00000-{'0' * 64}.json"]
    made[-1].parent.mkdir(parents=True)
    for path in made[-2:]:
        path.write_bytes(b"half")
    fetched = pool.snapshot("fetched")
    first = pool.write_part("fetched_died", task.part, fetched.read(parts=[task.part]), "of a run that was killed", fetched.schema)
    return [*made, pool.table_folder("fetched_died") / first.path]


def test_what_nobody_names_goes_when_it_is_a_day_old(pool: Pool) -> None:
    before = all_files(pool)
    orphans = leave_behind(pool)
    assert sweep(pool).files == 0, "all of it is younger than a day"
    make_old(pool)
    assert sweep(pool, dry_run=True).files == len(orphans) and all(path.exists() for path in orphans)
    report = sweep(pool)
    assert report.files == len(orphans) and report.bytes > 200
    assert all_files(pool) == before and package.open(pool.path).verify().ok


def test_tables_that_a_run_holds_are_let_alone(pool: Pool) -> None:
    orphans = leave_behind(pool)
    make_old(pool)
    with claim(pool, {"fetched": pool.snapshot("fetched").schema}):
        report = sweep(pool)
        assert report.held == ("fetched",) and "fetched" in report.text()
        assert orphans[0].exists() and orphans[1].exists() and not orphans[2].exists()
    assert sweep(pool).files == 2


def test_what_a_worker_reported_waits_for_its_commit(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, None)
    make_old(pool)
    before = {path for path in all_files(pool) if path.parent.name != "tmp"}  # there the phase of these tests takes its notes
    sweep(pool)
    assert before <= all_files(pool)
    with claim(pool, {}) as run:
        (told,) = commit(pool, run, ENGINE).tables
    assert told.left == 0 and told.committed == len(pool.snapshot("rows").files)


def test_a_file_that_is_published_anew_while_it_is_swept_stays(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = leave_behind(pool)[0]
    make_old(pool)
    real = os.rename

    def publish_first(old: Path, new: Path) -> None:
        if old == orphan:
            os.utime(orphan)  # as os.replace by a new run would leave it
        real(old, new)

    monkeypatch.setattr(os, "rename", publish_first)
    sweep(pool)
    assert orphan.exists()


def test_at_the_terminal(pool: Pool, curate: Callable) -> None:
    leave_behind(pool)
    make_old(pool)
    assert "6 files that nobody names would be deleted" in curate("sweep", pool.path, "--dry-run").out
    assert "6 files that nobody names deleted" in curate("sweep", pool.path, "--older-than", "2d").out
    assert curate("sweep", pool.path, "--older-than", "x").code == 2
