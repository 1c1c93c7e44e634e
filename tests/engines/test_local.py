"""The local engine and the runner above it: deaths, bugs, resuming, staleness."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from curate import schema
from curate.engines.base import EngineSettings
from curate.errors import IdentityError, LocalFault, PartsFailed, UsageError
from curate.lease import claim
from curate.run import PhaseReport, run_phase, stale_parts
from curate.store import Pool
from tests.engines.phases import Groups

ENGINE = EngineSettings(workers=2, wave_parts=2)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool.create(tmp_path / "pool")
    plan(made, {part: 3 for part in range(5)})
    return made


def plan(pool: Pool, sizes: dict[int, int], basis: str = "list") -> None:
    with claim(pool, {"rows": schema.table("rows")}) as run:
        files = [
            pool.write_part("rows", part, pa.table({"row": pa.array(range(size), pa.int32()), "url": [basis] * size}), basis)
            for part, size in sizes.items()
        ]
        run.commit("rows", files)


def work(pool: Pool, phase: Groups, engine: EngineSettings = ENGINE) -> PhaseReport:
    with claim(pool, {}) as run:
        return run_phase(pool, run, phase, engine)


def parts_of(pool: Pool) -> list[int]:
    return [file.part for file in pool.snapshot("groups_alone").files]


def visits(pool: Pool) -> list[list[str]]:
    return [line.split() for line in (pool.path / "tmp" / "visits").read_text().splitlines()]


def test_every_part_is_done_once_and_then_never_again(pool: Pool) -> None:
    report = work(pool, Groups())
    assert (report.parts, report.skipped, report.reasons["ok"], report.counters["visits"]) == (5, 0, 15, 5)
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    again = work(pool, Groups())
    assert (again.parts, again.skipped) == (0, 5)
    assert len(visits(pool)) == 5


def test_threads_come_from_settings(pool: Pool) -> None:
    work(pool, Groups(), EngineSettings(workers=1, threads_per_worker=3))
    assert {line[2] for line in visits(pool)} == {"3"}


def test_a_part_is_stale_when_what_it_was_computed_from_changed(pool: Pool) -> None:
    work(pool, Groups())
    plan(pool, {2: 4}, basis="other list")
    tasks, done = stale_parts(pool, Groups())
    assert [task.part for task in tasks] == [2] and done == 4
    assert tasks[0].previous is not None and Path(tasks[0].previous).exists()
    work(pool, Groups())
    assert pool.snapshot("groups_alone").read(["row"]).num_rows == 16


def test_a_worker_that_dies_costs_its_part_a_try_and_nothing_else(pool: Pool) -> None:
    report = work(pool, Groups(die_once=(1, 3)))
    assert report.parts == 5 and parts_of(pool) == [0, 1, 2, 3, 4]


def test_a_part_that_always_kills_fails_alone_with_exit_3_and_is_tried_again_next_time(pool: Pool) -> None:
    with pytest.raises(PartsFailed, match="1 of 5 parts failed; part 2: its worker died 3 times") as error:
        work(pool, Groups(die=(2,)))
    assert error.value.exit_code == 3
    assert parts_of(pool) == [0, 1, 3, 4]
    assert work(pool, Groups()).parts == 1


def test_a_bug_fails_its_part_and_shows_where(pool: Pool) -> None:
    with pytest.raises(PartsFailed, match="ZeroDivisionError: planted"):
        work(pool, Groups(raise_bug=(4,)))
    assert parts_of(pool) == [0, 1, 2, 3]


def test_a_phase_that_cannot_open_says_why(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PartsFailed, match=r"(?s)5 of 5 parts failed.*no such model"):
        work(pool, Groups(cannot_open=True))
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_of_this_machine_stops_the_run_and_keeps_what_is_done(pool: Pool) -> None:
    with pytest.raises(LocalFault) as error:
        work(pool, Groups(disk_full=(4,)), EngineSettings(workers=1))
    assert error.value.exit_code == 1
    assert parts_of(pool) == [0, 1, 2, 3]


def test_a_hung_worker_is_replaced(pool: Pool) -> None:
    begun = time.monotonic()
    work(pool, Groups(hang=(0,)), EngineSettings(workers=2, part_seconds=1.5))
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    assert time.monotonic() - begun < 3000


def test_other_settings_under_the_same_name_are_refused(pool: Pool) -> None:
    work(pool, Groups())
    with pytest.raises(IdentityError, match="groups_alone.*other alone settings"):
        work(pool, Groups(settings="b"))


def test_a_phase_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'rows'.*run the phase before it first"):
        work(Pool.create(tmp_path / "empty"), Groups())


def test_waves_keep_the_log_short(pool: Pool) -> None:
    work(pool, Groups(), EngineSettings(workers=1, wave_parts=2))
    assert pool.snapshot("groups_alone").version == 4  # made, claimed, then 5 parts in waves of 2, 2, 1


def test_closing_the_engine_leaves_no_process(pool: Pool) -> None:
    import psutil

    from curate.engines.local import LocalEngine

    tasks, _ = stale_parts(pool, Groups())
    outcomes = LocalEngine(ENGINE).each(Groups(hang=(0,)), tasks)
    next(outcomes)
    outcomes.close()
    assert not [child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
