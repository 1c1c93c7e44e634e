"""A Spark standalone cluster on this machine: a master and workers, each a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.ports import free_port

HOME = Path(importlib.util.find_spec("pyspark").origin).parent  # type: ignore[union-attr, arg-type]


def lacks_java() -> str:
    """Why Spark cannot run here, empty when it can."""
    home = os.environ.get("JAVA_HOME")
    found = Path(home, "bin", "java").exists() if home else shutil.which("java")
    return "" if found else "needs Java 17 or newer (JAVA_HOME or java on the path)"


@dataclass
class Nodes:
    """A running cluster of workers with room for an executor of each of two applications; each application gets two cores."""

    folder: Path
    port: int
    master: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0

    @property
    def address(self) -> str:
        """For engine.master."""
        return f"spark://127.0.0.1:{self.port}"

    def add(self) -> None:
        """Starts a worker."""
        self.started += 1
        words = ["--cores", "2", "--memory", "2g", "--host", "127.0.0.1", "--webui-port", "0", "--work-dir", str(self.folder / "work")]
        self.workers.append(daemon("worker.Worker", [*words, self.address], self.folder / f"worker-{self.started}.log"))

    def refill(self) -> None:
        """As many workers as there were in the beginning, in place of those that were killed."""
        gone = [worker for worker in self.workers if worker.poll() is not None]
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        for _ in gone:
            self.add()

    def executors(self) -> list[psutil.Process]:
        """JVMs that run tasks."""
        return [one for one in below(self.workers) if "CoarseGrainedExecutorBackend" in " ".join(command(one))]

    def python_workers(self) -> list[psutil.Process]:
        """Python processes of tasks, not the daemons that fork them."""
        found = {one.pid: one for one in below(self.workers) if "pyspark.daemon" in " ".join(command(one))}
        return [one for one in found.values() if parent(one) in found]


def below(roots: list[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """All living descendants."""
    found: list[psutil.Process] = []
    for root in roots:
        try:
            found += psutil.Process(root.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return found


def parent(process: psutil.Process) -> int:
    """Id of its parent, -1 once it is gone."""
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return -1


def command(process: psutil.Process) -> list[str]:
    """Its command line, empty once it is gone."""
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def daemon(kind: str, words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts one of Spark's own daemons in the foreground."""
    environment = {**os.environ, "SPARK_HOME": str(HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    environment["SPARK_MASTER_OPTS"] = "-Dspark.deploy.defaultCores=2"  # else the first application takes the whole cluster
    with log.open("wb") as stream:
        return subprocess.Popen(
            [str(HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", *words],
            env=environment, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def nodes(count: int, folder: Path) -> Iterator[Nodes]:
    """A master and `count` workers that have registered."""
    port = free_port()
    words = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    cluster = Nodes(folder, port, daemon("master.Master", words, folder / "master.log"))
    try:
        _wait(folder / "master.log", "Starting Spark master", 1)
        for _ in range(count):
            cluster.add()
        _wait(folder / "master.log", "Registering worker", count)
        yield cluster
    finally:
        for process in (*below([*cluster.workers, cluster.master]), *cluster.workers, cluster.master):
            process.kill()
        for started in (*cluster.workers, cluster.master):
            started.wait()


def _wait(log: Path, words: str, times: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while len(re.findall(words, log.read_text())) < times:
        assert time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.05)
