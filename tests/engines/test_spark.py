"""What only the Spark engine has: masters, Java, skew, sessions that are there already, loss of the cluster, its own folder."""

from __future__ import annotations

import collections
import itertools
import json
import operator
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from curate import errors
from curate.engines.base import EngineSettings, PartFailure
from curate.engines.offers import Offers
from curate.engines.outbox import Outbox, decode, encode
from curate.engines.skew import versions
from curate.errors import CurateError, LocalFault, MissingExtra
from curate.run import make_engine, stale_parts
from curate.stage import Again, PartFile, PartReport, PartTask
from curate.store import Pool
from tests.engines.phases import Groups, notes, wait_until
from tests.engines.pools import parts_of, plan, work
from tests.engines.spark_nodes import HOME, daemon, lacks_java, nodes
from tests.engines.test_conformance import RECIPE, hashes, started
from tests.ports import free_port

pytestmark = [pytest.mark.spark, pytest.mark.skipif(bool(lacks_java()), reason=lacks_java() or "has Java")]


def command(pool: Pool, *more: str) -> list[str]:
    """Words of `curate run` that have the pool's parts done on Spark, each committed as it comes."""
    return ["run", str(RECIPE), "--pool", str(pool.path), "input.path=none.csv", "--engine", "spark", "engine.wave_parts=1", *more]


def program(pool: Pool, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same as a process of its own."""
    words = [sys.executable, "-m", "curate", *command(pool, *more)]
    with_phase = {"ENGINE_TEST_PHASE": "{}", **os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=150, env=with_phase)


# -- wrong calls


def test_a_wrong_master_is_one_line_with_exit_code_2(pool: Pool, curate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", "{}")
    nobody = f"127.0.0.1:{free_port()}"
    for master, told in {
        f"spark://{nobody}": f"nobody answers at engine.master=spark://{nobody}",
        f"sc://{nobody}": f"nobody answers at engine.master=sc://{nobody}",
        "spark://": "engine.master=spark:// is no address of Spark",
    }.items():
        said = curate(*command(pool, f"engine.master={master}"))
        assert said.code == 2 and said.err.splitlines()[-1].startswith(told), said.err
        assert "Traceback" not in said.err


def test_a_machine_without_java_is_told_which_to_install(pool: Pool, tmp_path: Path) -> None:
    done = program(pool, "engine.master=local[1]", PATH=str(tmp_path), JAVA_HOME="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("Spark needs Java 17 or newer") and "JAVA_HOME" in done.stderr


def test_other_software_on_an_executor_is_one_line(pool: Pool, spark_cluster: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.engines import spark

    monkeypatch.setattr(spark, "versions", lambda: {**versions(), "pyarrow": "1.0"})
    tasks, _ = stale_parts(pool, Groups())
    with pytest.raises(CurateError) as error:
        list(make_engine(EngineSettings(name="spark", workers=2, **spark_cluster)).each(Groups(), tasks))
    assert re.match(r"the Spark executor on \S+ has other software than the driver \(pyarrow \S+ there and 1\.0 here\)", str(error.value))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_a_gpu_that_no_executor_has_is_asked_for_in_words(pool: Pool, spark_cluster: dict) -> None:
    tasks, _ = stale_parts(pool, Groups())
    with pytest.raises(CurateError, match=r"needs a GPU for each worker.*spark\.executor\.resource\.gpu\.amount") as error:
        list(make_engine(EngineSettings(name="spark", **spark_cluster)).each(Groups(gpus=1), tasks))
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("x\n  File a.py\ncurate.errors.LocalFault: the disk is full\n\nat org.apache", "the disk is full"),
        ("ModuleNotFoundError: No module named 'curate'", "curate-vlm is not installed in the Python of the Spark executors"),
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12",
            "the Python of the Spark executors is of another version",
        ),
        ('java.io.IOException: Cannot run program "/venv/bin/python"', "the Spark executors have no Python at the driver's path"),
    ],
)
def test_what_spark_says_at_length_becomes_one_line(said: str, told: str) -> None:
    from curate.engines.spark_cluster import refusal

    found = refusal(f"Job aborted due to stage failure: Task 0 in stage 3.0 failed 4 times\n{said}\n")
    assert found is not None and str(found).startswith(told) and "\n" not in str(found)
    assert refusal("ExecutorLostFailure (executor 1 exited)") is None


# -- the folder in which workers tell


def test_the_outbox_says_each_thing_once_and_reports_before_errors(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    report = PartReport(3, (PartFile("t", 3, "p", 5, 2, "b"),), collections.Counter(ok=2), {"visits": 1.5, "seen": np.int64(7)})
    box.tell(report)  # nobody waits: nothing happens
    assert not box.is_open()
    box.open()
    box.tell(LocalFault("full"))
    box.tell(report)
    first, second = box.hear()
    assert first == report and isinstance(second, LocalFault) and str(second) == "full"
    assert list(box.hear()) == []
    box.close()
    assert not (tmp_path / "box").exists()


def test_errors_and_failures_travel_as_text() -> None:
    assert decode(encode(PartFailure(1, "died", crashed=True))) == PartFailure(1, "died", crashed=True)
    missing = decode(encode(MissingExtra("torch", "train")))
    assert isinstance(missing, MissingExtra) and str(missing) == str(MissingExtra("torch", "train"))

    class Odd(errors.LocalFault):
        """Not of the tree: its nearest relative stands for it."""

    assert type(decode(encode(Odd("x")))) is LocalFault


# -- the folder from which workers take parts


def test_a_part_is_taken_once_in_order_and_given_back_by_orders_that_ended(tmp_path: Path) -> None:
    offers = Offers(tmp_path)
    offers.open()
    tasks = [PartTask("pool", part, {"rows": f"/{part}"}, "b", again=Again(("ok",)), without=frozenset({part})) for part in (10, 9, 100)]
    for task in tasks:
        offers.offer(task, tried=2)
    assert offers.count() == 3
    assert [offers.take("dead"), offers.take("alive"), offers.take("dead"), offers.take("dead")] == [
        (tasks[1], 2), (tasks[0], 2), (tasks[2], 2), None,
    ]  # fmt: skip
    assert offers.done("dead", 9, 2)
    assert list(offers.abandoned({"alive"})) == [100]
    assert not offers.done("dead", 100, 2) and list(offers.abandoned({"alive"})) == []
    assert offers.done("alive", 10, 2) and offers.count() == 0
    shutil.rmtree(tmp_path)
    assert offers.take("late") is None and not offers.done("late", 10, 2)


def test_two_who_take_at_the_same_time_never_have_the_same_part(tmp_path: Path) -> None:
    offers = Offers(tmp_path)
    offers.open()
    for part in range(300):
        offers.offer(PartTask("pool", part, {}, "b"), tried=0)
    together = threading.Barrier(4)

    def take(name: str) -> list[int]:
        together.wait()
        return [task.part for task, _ in iter(lambda: offers.take(name), None)]

    with ThreadPoolExecutor(4) as hands:
        taken = list(itertools.chain(*hands.map(take, "abcd")))
    assert sorted(taken) == list(range(300))


def test_an_order_takes_part_after_part(tmp_path: Path, spark_cluster: dict) -> None:
    """40 parts are two jobs where two workers are."""
    from curate.engines.spark_cluster import connect

    pool, settings = Pool.create(tmp_path / "pool"), EngineSettings(name="spark", workers=2, **spark_cluster)
    plan(pool, {part: ["x"] for part in range(40)})
    context = connect(settings).context
    assert context is not None
    before = len(context.statusTracker().getJobIdsForGroup(None))
    assert work(pool, Groups(), settings).parts == 40
    assert len(context.statusTracker().getJobIdsForGroup(None)) - before == 2


@pytest.mark.parametrize("shared", [True, False], ids=["folder", "object store"])
def test_a_lost_task_costs_what_it_had_in_hand_a_try(
    pool: Pool, spark_cluster: dict, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """The Python worker that watches is killed; where driver and workers share no folder, its whole order is given again."""
    from curate.engines import spark

    if not shared:
        monkeypatch.setattr(spark, "_outbox", lambda pool: None)
    tasks, _ = stale_parts(pool, Groups())
    phase, settings = Groups(hang=(0,), die_once=(3,)), EngineSettings(name="spark", workers=2, tries=2, **spark_cluster)
    with ThreadPoolExecutor(1) as hand:
        outcomes = hand.submit(lambda: list(make_engine(settings).each(phase, tasks)))
        wait_until(lambda: 0 in [line["part"] for line in notes(pool.path / "tmp" / "begun")])
        pid = next(line["pid"] for line in notes(pool.path / "tmp" / "begun") if line["part"] == 0)
        psutil.Process(pid).parent().kill()
    found = outcomes.result()
    assert sorted(outcome.part for outcome in found) == [0, 1, 2, 3, 4]
    assert not [outcome for outcome in found if isinstance(outcome, PartFailure)]


def test_jobs_that_never_come_to_work_fail_the_parts(pool: Pool, spark_cluster: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.engines import spark

    class Broken:
        """Cannot be read by a worker."""

        def __reduce__(self) -> tuple[Callable, tuple[int, int]]:
            return operator.floordiv, (1, 0)

    monkeypatch.setattr(spark, "versions", Broken)
    tasks, _ = stale_parts(pool, Groups())
    found = list(make_engine(EngineSettings(name="spark", workers=1, tries=1, **spark_cluster)).each(Groups(), tasks))
    assert sorted(outcome.part for outcome in found) == [0, 1, 2, 3, 4]
    assert {outcome.message.partition(" (")[0] for outcome in found} == {"Spark jobs did nothing, 1 one after another"}


# -- as users start it


@pytest.mark.long
def test_spark_submit_keeps_its_own_master(pool: Pool, spark_nodes: object) -> None:
    """`spark-submit RECIPE.py POOL …`: without engine= it is Spark, on the master of spark-submit."""
    words = [str(HOME / "bin" / "spark-submit"), "--master", spark_nodes.address, "--conf", "spark.ui.enabled=false", str(RECIPE)]
    environment = {**os.environ, "ENGINE_TEST_PHASE": "{}", "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*words, str(pool.path), "input.path=none.csv"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert parts_of(pool) == [0, 1, 2, 3, 4]
    wrong = [*words, str(pool.path), "input.path=none.csv", "fetch.in_fligth=3"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and "did you mean 'fetch.in_flight'?" in done.stdout  # spark-submit joins both streams of a program


@pytest.mark.long
def test_spark_connect(pool: Pool, tmp_path: Path) -> None:
    port = free_port()
    words = [
        "--class",
        "org.apache.spark.sql.connect.service.SparkConnectServer",
        "--master",
        "local[2]",
        "--conf",
        "spark.ui.enabled=false",
    ]
    server = daemon("SparkSubmit", [*words, "--conf", f"spark.connect.grpc.binding.port={port}", "spark-internal"], tmp_path / "server.log")
    try:
        wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        done = program(pool, f"engine.master=sc://127.0.0.1:{port}", ENGINE_TEST_PHASE=json.dumps({"die_once": [1], "leave": [2]}))
        assert done.returncode == 3 and done.stderr.splitlines()[-1].endswith("part 2: its worker died 3 times"), done.stderr
        assert parts_of(pool) == [0, 1, 3, 4]
    finally:
        server.kill()
        server.wait()


@pytest.mark.long
def test_a_stranger_at_the_master_is_refused_before_long(pool: Pool) -> None:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = program(pool, f"engine.master=spark://127.0.0.1:{server.getsockname()[1]}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("what answers at engine.master=spark://127.0.0.1") and done.stderr.count("\n") == 1


@pytest.mark.long
def test_a_lost_cluster_is_one_line_and_the_same_command_resumes(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_TEST_PHASE", json.dumps({"hang": [3]}))
    folder = tmp_path / "nodes"
    folder.mkdir()
    with nodes(1, folder) as cluster:
        words = command(pool, f"engine.master={cluster.address}", "engine.workers=1", "engine.start_seconds=5")
        with started(words) as driver:
            wait_until(lambda: 3 in [line["part"] for line in notes(pool.path / "tmp" / "begun")] and bool(parts_of(pool)), 120)
            for process in (cluster.master, *cluster.workers):
                process.kill()
            out, err = driver.communicate(timeout=90)
    assert driver.returncode == 1, out + err
    assert err.splitlines()[-1].startswith("for 5 s Spark at spark://127.0.0.1") and err.splitlines()[-1].endswith(
        "The same command resumes"
    ), err
    assert "Traceback" not in err and 3 not in parts_of(pool)
    assert subprocess.run([sys.executable, "-m", "curate", *words[:5]], capture_output=True, check=False).returncode == 0
    assert len(hashes(pool)) == 15
