"""What every engine has to do, run on each of them: one outcome a part, whatever happens to the workers."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from curate.engines.base import PartFailure
from curate.errors import LocalFault, MissingExtra, PartsFailed
from curate.run import make_engine, stale_parts
from curate.store import Pool
from tests.engines.conftest import Made
from tests.engines.phases import Divided, Groups, notes, wait_until
from tests.engines.pools import parts_of, plan, work

RECIPE = Path(__file__).with_name("recipe.py")


def hashes(pool: Pool) -> list[str | None]:
    return list(pool.snapshot("groups_alone").read(["group_id"])["group_id"].to_pylist())


def expected(captions: list[str | None]) -> list[str | None]:
    return [None if caption is None else hashlib.sha256(caption.encode()).hexdigest() for caption in captions]


def visits(pool: Pool) -> list[dict]:
    return notes(pool.path / "tmp" / "visits")


# -- what goes in comes out


def test_every_part_is_done_once_and_then_never_again(pool: Pool, engine: Made) -> None:
    report = work(pool, Groups(), engine())
    assert (report.parts, report.skipped, report.reasons["ok"], report.counters["visits"]) == (5, 0, 15, 5)
    assert hashes(pool) == expected([f"{part}/{row}" for part in range(5) for row in range(3)])
    again = work(pool, Groups(), engine())
    assert (again.parts, again.skipped) == (0, 5)
    assert len(visits(pool)) == 5


def test_cells_arrive_as_they_are(tmp_path: Path, engine: Made) -> None:
    """Empty parts and texts, nulls, many scripts, cells of 40 MB, in a pool whose name is not ASCII."""
    pool = Pool.create(tmp_path / "poöl 漢字 'x'")
    told: dict[int, list[str | None]] = {
        0: [],
        1: [None, "", None],
        2: ["naïve", "漢字かな", "🧑🏽‍🚀\u202e\0\n", "'; DROP--"],
        3: ["x" * 40_000_000],
    }
    plan(pool, told)
    report = work(pool, Groups(), engine())
    assert (report.parts, report.reasons["ok"]) == (4, 8)
    assert hashes(pool) == expected([caption for part in told.values() for caption in part])


def test_a_part_whose_rows_all_fail_is_a_part_like_any_other(pool: Pool, engine: Made) -> None:
    report = work(pool, Groups(fail_rows=(0, 3)), engine())
    assert report.reasons == {"ok": 9, "http_not_found": 6}
    assert parts_of(pool) == [0, 1, 2, 3, 4]


def test_more_workers_than_parts_and_no_parts_at_all(pool: Pool, engine: Made) -> None:
    tasks, _ = stale_parts(pool, Groups())
    assert list(make_engine(engine()).each(Groups(), [])) == []
    assert [outcome.part for outcome in make_engine(engine(workers=3)).each(Groups(), tasks[:1])] == [0]


def test_each_part_says_what_it_cost(pool: Pool, engine: Made) -> None:
    """The sum is what the workers spent, the loading of the phase included."""
    report = work(pool, Groups(burn_seconds=0.2), engine(workers=1))
    assert 5 * 0.2 <= report.counters["cpu_seconds"] < 60


# -- bugs and faults


def test_a_bug_fails_its_part_and_shows_where(pool: Pool, engine: Made) -> None:
    tasks, _ = stale_parts(pool, Groups())
    outcomes = {outcome.part: outcome for outcome in make_engine(engine()).each(Groups(raise_bug=(4,), long_bug=(2,)), tasks)}
    failed = {part: outcome for part, outcome in outcomes.items() if isinstance(outcome, PartFailure)}
    assert sorted(outcomes) == [0, 1, 2, 3, 4] and sorted(failed) == [2, 4]
    assert failed[4].message.startswith("Traceback") and "phases.py" in failed[4].message
    assert failed[4].message.strip().endswith("ZeroDivisionError: planted")
    assert "x" * 1000 in failed[2].message


def test_a_phase_that_cannot_open_says_why(pool: Pool, engine: Made, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PartsFailed, match=r"(?s)5 of 5 parts failed.*no such model") as error:
        work(pool, Groups(cannot_open=True), engine())
    assert error.value.exit_code == 3
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_of_a_machine_stops_the_run_and_keeps_what_is_done(pool: Pool, engine: Made) -> None:
    with pytest.raises(LocalFault, match="^the disk is full$") as error:
        work(pool, Groups(disk_full=(4,)), engine(workers=1))
    assert error.value.exit_code == 1
    assert parts_of(pool) == [0, 1, 2, 3]


def test_a_wrong_call_that_a_worker_finds_stops_the_run(pool: Pool, engine: Made) -> None:
    with pytest.raises(MissingExtra, match="torch is not installed") as error:
        work(pool, Groups(lacks_torch=(0,)), engine(workers=1))
    assert error.value.exit_code == 2


# -- deaths


def test_a_worker_that_dies_costs_its_part_a_try_and_nothing_else(pool: Pool, engine: Made) -> None:
    report = work(pool, Groups(die_once=(1, 3)), engine())
    assert report.parts == 5 and parts_of(pool) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("death", ["die", "leave"])
def test_a_part_that_always_kills_fails_alone_and_is_tried_again_next_time(pool: Pool, engine: Made, death: str) -> None:
    with pytest.raises(PartsFailed, match="1 of 5 parts failed; part 2: its worker died 2 times") as error:
        work(pool, Groups(**{death: (2,)}), engine(tries=2))
    assert error.value.exit_code == 3
    assert parts_of(pool) == [0, 1, 3, 4]
    begun = [line["part"] for line in notes(pool.path / "tmp" / "begun")]
    assert begun.count(2) == 2
    assert work(pool, Groups(), engine()).parts == 1


def test_a_part_that_kills_takes_no_other_with_it(pool: Pool, engine: Made) -> None:
    """Parts that were under way beside it are tried again apart from it, so that none of them fails with it."""
    with pytest.raises(PartsFailed, match="1 of 5 parts failed; part 2"):
        work(pool, Groups(die=(2,), parts_at_once=5, seconds=0.1), engine(workers=1))
    assert parts_of(pool) == [0, 1, 3, 4]


def test_a_hung_worker_is_replaced(pool: Pool, engine: Made) -> None:
    work(pool, Groups(hang=(0,)), engine(part_seconds=1.5))
    assert parts_of(pool) == [0, 1, 2, 3, 4]


def test_closing_stops_the_workers(pool: Pool, engine: Made) -> None:
    tasks, _ = stale_parts(pool, Groups())
    outcomes = make_engine(engine()).each(Groups(hang=(0,)), tasks)
    wait = iter(outcomes)
    while 0 not in (begun := {line["part"]: line["pid"] for line in notes(pool.path / "tmp" / "begun")}):
        next(wait)
    outcomes.close()
    wait_until(lambda: not psutil.pid_exists(begun[0]))


def test_rows_that_kill_their_worker_are_found_and_left_out(pool: Pool, engine: Made) -> None:
    report = work(pool, Divided(deadly=(1,)), engine(tries=1))
    assert +report.reasons == {"ok": 14, "worker_crashed": 1}
    assert parts_of(pool) == [0, 1, 2, 3, 4]


# -- how the work is spread


def test_outcomes_come_one_by_one_while_others_work(pool: Pool, engine: Made) -> None:
    """Part 1 waits until the driver has heard of part 0."""
    tasks, _ = stale_parts(pool, Groups())
    heard = []
    for outcome in make_engine(engine()).each(Groups(wait_for=(1,)), tasks):
        assert not isinstance(outcome, PartFailure), outcome.message
        heard.append(outcome.part)
        (pool.path / "tmp" / "heard").touch()
    assert sorted(heard) == [0, 1, 2, 3, 4] and heard[0] != 1


def test_no_more_workers_than_agreed_each_opens_the_phase_once(pool: Pool, engine: Made) -> None:
    work(pool, Groups(seconds=0.3), engine(workers=2))
    done = visits(pool)
    assert len({line["pid"] for line in done}) == len({line["opened"] for line in done}) == 2
    assert most_at_once([line["span"] for line in done]) == 2


def test_threads_come_from_settings(pool: Pool, engine: Made) -> None:
    work(pool, Groups(), engine(workers=1, threads_per_worker=3))
    assert {line["threads"] for line in visits(pool)} == {"3"}


def test_a_worker_does_as_many_parts_at_once_as_the_phase_says(pool: Pool, engine: Made) -> None:
    work(pool, Groups(seconds=0.3, parts_at_once=3), engine(workers=1))
    assert len({line["pid"] for line in visits(pool)}) == 1
    assert most_at_once([line["span"] for line in visits(pool)]) == 3


def most_at_once(spans: list[tuple[float, float]]) -> int:
    events = sorted([(begun, 1) for begun, _ in spans] + [(ended, -1) for _, ended in spans])
    running = collections.Counter[str]()
    return max(running.update(now=step) or running["now"] for _, step in events)


class Heard:
    """Progress as a list of what was said."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []

    def start(self, task: str, total: int | None, unit: str) -> None:
        self.lines.append(("start", task, total, unit))

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        self.lines.append(("advance", task, n, facts["ok"]))

    def tally(self, task: str, reasons: Mapping[str, int], counters: Mapping[str, float]) -> None:
        self.tallied = sum(reasons.values())

    def finish(self, task: str) -> None:
        self.lines.append(("finish", task))


def test_progress_is_told_part_by_part(pool: Pool, engine: Made) -> None:
    heard = Heard()
    work(pool, Groups(), engine(), heard)
    parts = [("advance", "alone", 1, 3 * number) for number in range(1, 6)]
    assert heard.lines == [("start", "alone", 5, "parts"), *parts, ("finish", "alone")]
    assert heard.tallied == 15


# -- at a terminal


@pytest.mark.parametrize(
    ("phase", "code", "lines"),
    [
        ({}, 0, []),
        ({"leave": [2]}, 3, ["alone: 1 of 5 parts failed; part 2: its worker died 2 times"]),
        ({"lacks_torch": [2]}, 2, ["torch is not installed: run  pip install 'curate-vlm[train]'"]),
        ({"disk_full": [2]}, 1, ["the disk is full"]),
    ],
)
def test_exit_codes(
    pool: Pool, engine: Made, curate: Callable, monkeypatch: pytest.MonkeyPatch, phase: dict, code: int, lines: list[str]
) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", json.dumps(phase))
    said = curate("run", RECIPE, "--pool", pool.path, *engine.words(tries=2), "input.path=none.csv")
    beside_progress = [line for line in said.err.splitlines() if not re.match(r"alone: \d of 5 parts, ", line)]
    assert (said.code, beside_progress) == (code, lines)


def test_ctrl_c_leaves_a_pool_that_the_same_command_finishes(
    pool: Pool, engine: Made, curate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", json.dumps({"hang": [3]}))
    words = ["run", str(RECIPE), "--pool", str(pool.path), *engine.words(), "input.path=none.csv"]
    with started(words) as driver:
        wait_until(lambda: 3 in [line["part"] for line in notes(pool.path / "tmp" / "begun")] and bool(parts_of(pool)))
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=60)
    assert (driver.returncode, err.splitlines()[-1:]) == (1, ["stopped; the same command resumes"]), out + err
    hung = [line["pid"] for line in notes(pool.path / "tmp" / "begun") if line["part"] == 3]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in hung))
    kept = parts_of(pool)
    assert 3 not in kept
    assert curate(*words).code == 0
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    assert all(sum(line["part"] == part for line in visits(pool)) == 1 for part in kept)


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "curate", *words]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()
