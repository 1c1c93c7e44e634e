"""Slurm: job arrays with a driver and without one, what their workers leave, and what a commit makes of it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import curate as package
from curate.engines import reports
from curate.engines.base import EngineSettings
from curate.errors import IdentityError, LocalFault, PartsFailed, UsageError
from curate.lease import claim
from curate.run import make_engine, run_phase, stale_parts
from curate.stage import PartReport
from curate.store import Pool
from curate.work import CommitReport, commit, parts_said, work
from tests.catalog import pools
from tests.engines.fake_slurm import put_on_path
from tests.engines.phases import Groups, notes, wait_until
from tests.engines.pools import parts_of, plan
from tests.score.pools import Row, jpeg, make_pool, noise, tiny_clip

ENGINE = EngineSettings(workers=1)
TEMPLATES = Path(__file__).parent.parent.parent / "pipelines" / "slurm"


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_on_path(tmp_path, monkeypatch)


def committed(pool: Pool) -> CommitReport:
    with claim(pool, {}) as run:
        return commit(pool, run, ENGINE)


def told(report: CommitReport) -> tuple[int, ...]:
    (one,) = report.tables
    return one.committed, one.before, one.twins, one.stale, one.unreadable, one.left


# -- without a driver


@pytest.mark.parametrize("model", [None, pytest.param("tiny", marks=pytest.mark.long)])
def test_shares_of_an_array_and_one_commit_give_the_pool_of_a_local_run(
    tmp_path: Path, jobs: Path, monkeypatch: pytest.MonkeyPatch, model: str | None
) -> None:
    """The templates as they are shipped, three array tasks, the commit behind them, no network anywhere; all is equal."""
    parts = [[Row(f"caption {part} {at}", jpeg(noise(5 * part + at))) for at in range(4)] for part in range(7)]
    local, cluster = make_pool(tmp_path / "local", parts), tmp_path / "cluster"
    shutil.copytree(local.path, cluster)
    clip = {"model": model, "weights": str(tiny_clip(tmp_path / model))} if model else None
    package.open(local.path).score(clip=clip)
    monkeypatch.setenv("PATH", f"{program(tmp_path)}:{os.environ['PATH']}")
    array = [TEMPLATES / "array.sbatch", cluster, "score", *(f"clip.{key}={value}" for key, value in (clip or {}).items())]
    array_job = submit(tmp_path, "--array=0-2", *array)
    commit_job = submit(tmp_path, f"--dependency=afterany:{array_job}", TEMPLATES / "commit.sbatch", cluster)
    wait_until((jobs / commit_job / "ended").exists)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("curate-*.log")))
    assert "scores_base: 7 parts committed; 0 still to be done" in logs, logs
    assert package.open(cluster).digest() == package.open(local.path).digest()
    assert len(list(tmp_path.glob(f"curate-{array_job}_*.log"))) == 3 and not list((cluster / "reports").rglob("*.json"))


def test_what_follows_needs_no_network_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online = pools.build(tmp_path / "online").path
    offline = shutil.copytree(online, tmp_path / "offline")
    monkeypatch.setenv("PATH", f"{program(tmp_path)}:{os.environ['PATH']}")
    for command in (["dedupe"], ["filter", "--where", "clip_score > 0.3", "name=all"], ["pack"]):
        subprocess.run(["curate", command[0], str(offline), *command[1:]], check=True, capture_output=True)
    pool = package.open(online)
    pool.dedupe(), pool.filter(where="clip_score > 0.3", name="all"), pool.pack()
    assert package.open(offline).digest() == pool.digest() and package.open(offline).verify().ok


OFFLINE = ["unshare", "--user", "--map-root-user", "--net"]


def program(folder: Path) -> Path:
    """`curate` as a shell finds it, in a world without any network, as on a compute node."""
    if subprocess.run([*OFFLINE, "true"], capture_output=True).returncode:
        pytest.skip("needs root or user namespaces, to take the network away")
    (folder / "bin").mkdir()
    (folder / "bin" / "curate").write_text(f'#!/bin/sh\nexec {" ".join(OFFLINE)} "{sys.executable}" -m curate "$@"\n')
    (folder / "bin" / "curate").chmod(0o755)
    return folder / "bin"


def submit(folder: Path, *words: object) -> str:
    return subprocess.run(["sbatch", "--parsable", *map(str, words)], capture_output=True, text=True, check=True, cwd=folder).stdout.strip()


def test_ranges_are_done_once_and_committed_once(pool: Pool) -> None:
    first = work(pool, Groups(), ENGINE, parts_said("0-2"))
    assert (first.done, first.skipped) == (3, 0) and parts_of(pool) == []
    again = work(pool, Groups(), ENGINE, parts_said("0-4"))
    assert (again.done, again.skipped) == (2, 3), "what has a report is not done again"
    assert told(committed(pool)) == (5, 0, 0, 0, 0, 0)
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    version = pool.snapshot("groups_alone").version
    assert committed(pool).tables == () and pool.snapshot("groups_alone").version == version
    assert work(pool, Groups(), ENGINE, None).skipped == 5


def test_parts_that_are_missing_are_told(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, [1])
    report = committed(pool)
    assert told(report) == (1, 0, 0, 0, 0, 4)
    with pytest.raises(PartsFailed, match="4 parts are still to be done") as error:
        report.require()
    assert error.value.exit_code == 3


def test_a_driver_finishes_what_workers_began(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, [0, 3])
    committed(pool)
    with claim(pool, {}) as run:
        assert run_phase(pool, run, Groups(), ENGINE).parts == 3


def test_reports_committed_before_twins_and_halves_are_harmless(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, None)
    folder = pool.path / "reports" / "groups_alone"
    kept = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    half = sorted(kept)[4]
    (folder / half).write_bytes(kept[half][:-20])
    (folder / f"00002-{'0' * 64}.json").write_bytes(kept[sorted(kept)[2]])
    twin_of(pool, 1)
    assert told(committed(pool)) == (4, 0, 1, 0, 2, 1)
    for name, text in kept.items():
        (folder / name).write_bytes(text)
    taken, before, twins, stale, unreadable, left = told(committed(pool))
    assert (taken, before + stale, twins, unreadable, left) == (1, 4, 0, 1, 0) and stale <= 1, "either twin may have come first"
    assert parts_of(pool) == [0, 1, 2, 3, 4] and package.open(pool.path).sql("SELECT count(*) AS n FROM groups_alone").rows() == [{"n": 15}]


def twin_of(pool: Pool, part: int) -> None:
    """A second worker did the part as well, with other values: what a server answers may differ."""
    (task,) = [task for task in stale_parts(pool, Groups())[0] if task.part == part]
    data = pa.table({"row": pa.array(range(3), pa.int32()), "group_id": ["other"] * 3})
    report = PartReport(part, (pool.write_part("groups_alone", part, data, task.basis),), {"ok": 3})
    reports.leave(pool, Groups(), Groups().identity(), task, report)


def test_a_report_on_what_has_changed_since_is_refused(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, None)
    plan(pool, {2: ["other", "rows"]}, basis="other list")
    assert told(committed(pool)) == (4, 0, 0, 1, 0, 1)
    assert parts_of(pool) == [0, 1, 3, 4]
    work(pool, Groups(), ENGINE, None)
    assert told(committed(pool)) == (1, 0, 0, 0, 0, 0)


def test_a_report_that_a_newer_commit_has_overtaken_is_refused(pool: Pool) -> None:
    """It was to bring a file up to date that is no longer the part's."""
    work(pool, Groups(), ENGINE, None)
    committed(pool)
    plan(pool, {part: ["new"] for part in range(5)}, basis="new list")
    work(pool, Groups(), ENGINE, None)
    twin_of(pool, 4)
    found = {name: reports.read(pool, "groups_alone", name) for name in reports.names(pool, "groups_alone")}
    twins = [name for name, left in found.items() if left and left.report.part == 4]
    late = pool.path / "reports" / "groups_alone" / twins[1]
    text = late.read_bytes()
    late.unlink()
    committed(pool)
    late.write_bytes(text)
    assert told(committed(pool)) == (0, 0, 0, 1, 0, 0)


def test_other_settings_are_refused(pool: Pool) -> None:
    work(pool, Groups(), ENGINE, [0])
    committed(pool)
    work(pool, Groups(settings="b"), ENGINE, [1])
    with pytest.raises(IdentityError, match="groups_alone"):
        committed(pool)


def test_a_part_that_fails_is_told_by_its_worker_and_leaves_no_report(pool: Pool) -> None:
    with pytest.raises(PartsFailed, match="ZeroDivisionError"):
        work(pool, Groups(raise_bug=(3,)), ENGINE, None)
    assert told(committed(pool)) == (4, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-2", "1-2-3"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no range of parts"):
        parts_said(text)


def test_shares_are_whole_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.engines.slurm import place_in_job, share_of

    for of in (1, 3, 7, 12):
        shares = [share_of(range(10), which, of) for which in range(of)]
        assert list(itertools.chain(*shares)) == list(range(10)) and max(map(len, shares)) - min(map(len, shares)) <= 1
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert place_in_job() == (3, 4)
    for name, value in {"ID": 11, "MIN": 10, "COUNT": 5}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert place_in_job() == (1, 5)


# -- with a driver


def test_an_array_task_that_is_killed_costs_its_parts_a_try(pool: Pool, jobs: Path) -> None:
    """Its whole session dies, as when a node does; what it had reported is not done again."""
    outcomes = make_engine(EngineSettings(name="slurm", workers=1, machines=1)).each(Groups(hang=(3,)), stale_parts(pool, Groups())[0])
    heard = [next(outcomes).part for _ in range(3)]
    wait_until(lambda: 3 in [line["part"] for line in notes(pool.path / "tmp" / "begun")])
    (task,) = (jobs / "1000").glob("task-*")
    os.killpg(int(task.name.removeprefix("task-")), signal.SIGKILL)
    heard += [outcome.part for outcome in outcomes]
    assert heard[:3] == [0, 1, 2] and sorted(heard) == [0, 1, 2, 3, 4]
    assert (jobs / "1001").exists() and not (jobs / "1002").exists()
    visited = [line["part"] for line in notes(pool.path / "tmp" / "visits")]
    assert sorted(visited) == [0, 1, 2, 3, 4]


def test_what_an_array_did_after_its_driver_died_is_taken_up(pool: Pool, jobs: Path) -> None:
    work(pool, Groups(), ENGINE, [0, 1])  # as its tasks would
    with claim(pool, {}) as run:
        report = run_phase(pool, run, Groups(), EngineSettings(name="slurm", workers=1, machines=2))
    assert report.parts == 5 and parts_of(pool) == [0, 1, 2, 3, 4]
    assert [line["part"] for line in notes(pool.path / "tmp" / "visits")].count(0) == 1
    assert not list((pool.path / "tmp").glob("*.slurm"))


def test_without_slurm_or_with_a_wrong_option_one_line_says_so(pool: Pool, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, _ = stale_parts(pool, Groups())
    with pytest.raises(LocalFault, match="sbatch refused the job: sbatch: error: invalid partition"):
        list(make_engine(EngineSettings(name="slurm", options=("--partition=none",))).each(Groups(), tasks))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="sbatch is not on PATH"):
        list(make_engine(EngineSettings(name="slurm")).each(Groups(), tasks))


# -- at a terminal


def test_the_commands(pool: Pool, curate: Callable) -> None:
    assert curate("commit", pool.path).out == "nothing to commit: no worker has left a report\n"
    assert curate("work", pool.path).code == 2 and curate("work", pool.path, "pack").code == 2
    assert curate("work", pool.path, "score", "--parts", "1-0").err.startswith("'1-0' is no range of parts")
    work(pool, Groups(), ENGINE, [0])
    said = curate("commit", pool.path, "--format", "json")
    assert said.code == 3 and json.loads(said.out)["tables"][0]["left"] == 4
    assert curate("slurm").out.split()[0] == "array"
    assert curate("slurm", "commit").out == (TEMPLATES / "commit.sbatch").read_text()
    assert "there are array" in curate("slurm", "x").err
    assert curate("work", "--order", pool.path / "tmp").code == 2
