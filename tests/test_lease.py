"""One writer per table: who wins, who stops, and that nobody's rows double."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from curate import schema
from curate.errors import Fenced, PoolBusy
from curate.lease import claim, lease_holder
from curate.store import Pool

ROWS = schema.table("rows")

WRITER = """
    import sys, time
    import pyarrow as pa
    from curate import schema
    from curate.errors import CurateError
    from curate.lease import claim
    from curate.store import Pool
    pool = Pool.open(sys.argv[1])
    try:
        with claim(pool, {"rows": schema.table("rows")}, lease_seconds=float(sys.argv[3])) as run:
            print("ready", flush=True)
            sys.stdin.readline()
            data = pa.table({"row": pa.array([0], pa.int32()), "url": [sys.argv[2]]})
            run.commit("rows", [pool.write_part("rows", 0, data, sys.argv[2])])
            print("done", flush=True)
    except CurateError as error:
        print(type(error).__name__, flush=True)
        sys.exit(error.exit_code)
"""


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "a pool <é>")


@pytest.fixture
def start(pool: Pool) -> Iterator[object]:
    running: list[subprocess.Popen[str]] = []

    def launch(name: str, lease_seconds: float = 10.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(pool.path), name, str(lease_seconds)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield launch
    for process in running:
        process.kill()
        process.wait()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def one_row(pool: Pool) -> str:
    found = pool.snapshot("rows").read(["url"]).column("url").to_pylist()
    assert len(found) == 1
    return str(found[0])


def test_two_writers_at_once_one_wins_the_other_exits_1(pool: Pool, start) -> None:  # type: ignore[no-untyped-def]
    first = start("first")
    assert says(first) == "ready"
    second = start("second")
    assert says(second) == "PoolBusy" and second.wait() == 1
    go(first)
    assert says(first) == "done" and first.wait() == 0
    assert one_row(pool) == "first"


def test_many_writers_in_the_same_moment(pool: Pool, start) -> None:  # type: ignore[no-untyped-def]
    writers = [start(f"w{i}") for i in range(4)]
    answers = [says(writer) for writer in writers]
    for writer, answer in zip(writers, answers, strict=True):
        if answer == "ready":
            go(writer)
    endings = [says(writer) if answer == "ready" else answer for writer, answer in zip(writers, answers, strict=True)]
    assert endings.count("done") == 1, endings
    assert set(endings) <= {"done", "PoolBusy", "Fenced"}
    one_row(pool)


def test_a_killed_writer_is_replaced_at_once(pool: Pool, start) -> None:  # type: ignore[no-untyped-def]
    first = start("first", lease_seconds=60)
    assert says(first) == "ready"
    first.kill()
    first.wait()
    second = start("second")
    assert says(second) == "ready"
    go(second)
    assert says(second) == "done"
    assert one_row(pool) == "second"


def test_a_stopped_writer_that_was_replaced_exits_1_when_it_wakes(pool: Pool, start) -> None:  # type: ignore[no-untyped-def]
    first = start("first", lease_seconds=0.5)
    assert says(first) == "ready"
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(0.8)
    second = start("second")
    assert says(second) == "ready"
    go(second)
    assert says(second) == "done"
    os.kill(first.pid, signal.SIGCONT)
    go(first)
    assert says(first) == "Fenced" and first.wait() == 1
    assert one_row(pool) == "second"


def test_a_fenced_run_notices_even_when_it_has_nothing_to_commit(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as older:
        (pool.path / "leases" / "rows.json").unlink()
        with claim(pool, {"rows": ROWS}), pytest.raises(Fenced):
            older.check()


def test_the_lease_names_its_holder_and_is_given_back(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}):
        holder = lease_holder(pool, "rows")
        assert holder is not None and holder["pid"] == os.getpid()
        with pytest.raises(PoolBusy, match=f"process {os.getpid()} on"), claim(pool, {"rows": ROWS}):
            pass
    assert lease_holder(pool, "rows") is None


def test_different_tables_are_written_side_by_side(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as one, claim(pool, {"groups_pixels": schema.table("groups_pixels")}) as two:
        one.commit("rows", [pool.write_part("rows", 0, pa.table({"row": pa.array([0], pa.int32())}), "a")])
        two.commit("groups_pixels", [pool.write_part("groups_pixels", 0, pa.table({"row": pa.array([0], pa.int32())}), "a")])
    assert pool.tables() == ["groups_pixels", "rows"]


def test_unpublished_files_of_dead_processes_are_removed(pool: Pool) -> None:
    import socket

    dead = pool.path / "tmp" / f"{socket.gethostname()}.4194304000.abc.tar"
    mine = pool.temporary(".tar")
    dead.write_text("x")
    mine.write_text("x")
    with claim(pool, {"rows": ROWS}):
        assert not dead.exists() and mine.exists()


def test_what_readers_begin_with_is_synced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new table's first log file holds its schema; a checkpoint stands in for all the log before it."""
    synced: set[str] = set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(Path(os.readlink(f"/proc/self/fd/{fd}")).name), real(fd))[1])
    with claim(pool, {"rows": ROWS}) as run:
        assert {f"{0:020d}.json", "rows", "tables"} <= synced
        for turn in range(101):
            run.commit("rows", [pool.write_part("rows", 0, pa.table({"row": pa.array([turn], pa.int32())}), "b")])
    log = pool.table_folder("rows") / "_delta_log"
    beginnings = {path.name for path in (*log.glob("*.checkpoint*"), log / "_last_checkpoint")}
    assert len(beginnings) >= 2 and beginnings <= synced
