"""The same work twice: parts, waves and drivers that have a twin leave every row once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from curate import run as runner
from curate.engines.base import EngineSettings, PartFailure
from curate.errors import Fenced
from curate.lease import claim
from curate.run import run_phase, stale_parts
from curate.stage import PartReport, PartTask, Phase
from curate.store import Pool
from tests.engines.phases import Groups
from tests.engines.pools import parts_of, plan

PARTS, ROWS = 4, 5


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool.create(tmp_path / "pool")
    plan(made, {part: [f"{part}/{row}" for row in range(ROWS)] for part in range(PARTS)})
    return made


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def every_row_once(pool: Pool) -> bool:
    found = pool.snapshot("groups_alone").read(["part", "row"]).to_pylist()
    return [(line["part"], line["row"]) for line in found] == [(part, row) for part in range(PARTS) for row in range(ROWS)]


def done(pool: Pool, tasks: Sequence[PartTask], phase: Phase | None = None) -> list[PartReport]:
    with (phase or Groups()).open() as do:
        return [do(task) for task in tasks]


def test_a_part_that_is_run_twice_at_once_is_one_file(pool: Pool) -> None:
    tasks, _ = stale_parts(pool, Groups())
    with ThreadPoolExecutor(2) as twins:
        one, other = twins.map(lambda _: done(pool, tasks), range(2))
    assert [report.files for report in one] == [report.files for report in other]
    assert len(list(pool.table_folder("groups_alone").glob("*.parquet"))) == PARTS
    with claim(pool, {"groups_alone": Groups().schema}) as run:
        run.commit("groups_alone", [file for report in (*one, *other) for file in report.files])
    assert every_row_once(pool)


def test_a_twin_that_came_to_other_values_replaces_its_part_and_doubles_nothing(pool: Pool) -> None:
    """As where a part was fetched twice and a server had changed its mind."""
    tasks, _ = stale_parts(pool, Groups())
    first = done(pool, tasks)
    plan(pool, {0: ["changed"] * ROWS}, basis="other list")
    late = done(pool, [replace(stale_parts(pool, Groups())[0][0], basis=tasks[0].basis)])
    with claim(pool, {"groups_alone": Groups().schema}) as run:
        for reports in (first, late):
            run.commit("groups_alone", [file for report in reports for file in report.files])
    assert first[0].files != late[0].files and parts_of(pool) == list(range(PARTS)) and every_row_once(pool)


@pytest.mark.parametrize("again", ["the same driver", "the next driver"])
def test_a_wave_that_is_committed_twice_counts_once(pool: Pool, again: str) -> None:
    files = [file for report in done(pool, stale_parts(pool, Groups())[0]) for file in report.files]
    with claim(pool, {"groups_alone": Groups().schema}) as run:
        run.commit("groups_alone", files)
        if again == "the same driver":
            version = pool.snapshot("groups_alone").version
            run.commit("groups_alone", files)
            assert pool.snapshot("groups_alone").version == version, "nothing was written"
    if again == "the next driver":
        with claim(pool, {"groups_alone": Groups().schema}) as run:
            run.commit("groups_alone", files)
    assert every_row_once(pool)


class Interrupted:
    """An engine in the middle of whose work something else happens."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        with phase.open() as do:
            for number, task in enumerate(tasks):
                if number == 2:
                    self.meanwhile()
                yield do(task)


def test_a_driver_that_was_fenced_in_the_middle_of_a_phase_commits_nothing_more(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up with finished parts in hand: its successor has done them all, under another epoch."""
    plain, versions = runner.make_engine, []

    def successor() -> None:
        (pool.path / "leases" / "groups_alone.json").unlink()  # it was silent for too long
        monkeypatch.setattr(runner, "make_engine", plain)
        with claim(pool, {}) as run:
            assert run_phase(pool, run, Groups(), EngineSettings(workers=1)).parts == PARTS
        versions.append(pool.snapshot("groups_alone").version)

    monkeypatch.setattr(runner, "make_engine", lambda settings: Interrupted(successor))
    with claim(pool, {}) as run, pytest.raises(Fenced, match="took over"):
        run_phase(pool, run, Groups(), EngineSettings(workers=1, wave_parts=PARTS))
    assert [pool.snapshot("groups_alone").version] == versions and every_row_once(pool)


def test_a_driver_that_was_fenced_after_a_wave_leaves_that_wave_to_its_successor(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, skipped = runner.make_engine, []

    def successor() -> None:
        (pool.path / "leases" / "groups_alone.json").unlink()
        monkeypatch.setattr(runner, "make_engine", plain)
        with claim(pool, {}) as run:
            skipped.append(run_phase(pool, run, Groups(), EngineSettings(workers=1)).skipped)

    monkeypatch.setattr(runner, "make_engine", lambda settings: Interrupted(successor))
    with claim(pool, {}) as run, pytest.raises(Fenced):
        run_phase(pool, run, Groups(), EngineSettings(workers=1, wave_parts=1))
    assert skipped == [2] and every_row_once(pool)
