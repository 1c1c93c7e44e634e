"""Whole runs on Spark: the same pool as on a laptop, whatever is killed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import psutil
import pytest

import curate
from tests.e2e.kills import Kind, Undisturbed, driver, sweep
from tests.e2e.runs import Site, finish, shards_of
from tests.engines.spark_nodes import Nodes, lacks_java

pytestmark = [pytest.mark.spark, pytest.mark.skipif(bool(lacks_java()), reason=lacks_java() or "has Java")]


@pytest.fixture(scope="module", autouse=True)
def no_session_of_ours() -> None:
    """Ends the session of the tests before these, whose executors would be killed in place of a run's."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


def on(master: str) -> tuple[str, ...]:
    return ("engine=spark", f"engine.master={master}")


@pytest.mark.parametrize("kind", ["standalone", pytest.param("local-cluster", marks=pytest.mark.long)])
def test_the_same_pool_and_shards(
    served: Site, calm: Undisturbed, calm_folder: Path, spark_nodes: Nodes, tmp_path: Path, kind: str
) -> None:
    master = spark_nodes.address if kind == "standalone" else "local-cluster[2,1,1024]"
    finish(served.command(tmp_path / "pool", *on(master), "engine.workers=0"), tmp_path / "log")
    pool = curate.open(tmp_path / "pool")
    pool.verify().require()
    assert pool.digest() == calm.digest
    assert shards_of(tmp_path / "pool") == shards_of(calm_folder / "pool")


def kind(nodes: Nodes) -> Kind:
    """What can be killed of a run on this cluster; workers that were killed are replaced by new ones."""

    def workers(pid: int) -> list[psutil.Process]:
        nodes.refill()
        return [psutil.Process(worker.pid) for worker in nodes.workers] if nodes.executors() else []

    def executors(pid: int) -> list[psutil.Process]:
        nodes.refill()
        return nodes.executors()

    def python(pid: int) -> list[psutil.Process]:
        return nodes.python_workers()

    victims = {"driver": driver, "spark worker": workers, "spark executor": executors, "python worker": python}
    return Kind("spark", on(nodes.address), victims)


def test_kills_on_spark(served: Site, calm: Undisturbed, spark_nodes: Nodes, tmp_path: Path) -> None:
    """The short form: a process of each side."""
    victims = ["spark executor", "driver"]
    found = sweep(served, calm, tmp_path, random.Random(2), victims, kind(spark_nodes))
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
    assert found.killed.total() == len(victims)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_kill_sweep_on_spark(served: Site, calm: Undisturbed, spark_nodes: Nodes, tmp_path: Path) -> None:
    """60 kills (CURATE_SPARK_KILLS)."""
    draw, one = random.Random(int(os.environ.get("CURATE_KILL_SEED", "4"))), kind(spark_nodes)
    victims = draw.choices(sorted(one.victims), k=int(os.environ.get("CURATE_SPARK_KILLS", "60")))
    found = sweep(served, calm, tmp_path, draw, victims, one)
    print(f"\n{found.claim()}")
    assert (found.lost, found.duplicated, found.unexpected, found.wrong) == (0, 0, 0, [])
