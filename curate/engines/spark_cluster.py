"""How a Spark session is found or started, how its noise is kept off the terminal, and how its loss is noticed."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from curate import errors
from curate.engines.base import EngineSettings
from curate.errors import ClusterLost, CurateError, UsageError

_CONNECT_SECONDS = 5.0
_REGISTER_SECONDS = 25.0  # Spark itself would go on for a minute
_SILENT_SECONDS = 20.0
OURS = {
    "spark.app.name": "curate",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.retainedJobs": "200",  # every order is a job: the driver need not remember them all
    "spark.ui.retainedStages": "200",
    "spark.sql.ui.retainedExecutions": "50",
    "spark.python.worker.reuse": "true",
    "spark.speculation": "false",
}
"""Properties of a session that this engine starts; `engine.conf` goes before them."""


@dataclass
class Cluster:
    """A session, and what we know of the cluster behind it."""

    spark: SparkSession
    asked: tuple[str, tuple[tuple[str, str], ...]] | None  # what it was started for; None: it was there before us
    settings: EngineSettings
    log: Path | None = None
    server: tuple[str, int] | None = None  # of Spark Connect
    slots: int = 0  # of Spark Connect, which does not tell it later
    heard: float = field(default_factory=time.monotonic)
    keep_log: bool = False

    @property
    def context(self) -> SparkContext | None:
        """None on Spark Connect, where the driver is elsewhere."""
        return None if self.server else self.spark.sparkContext

    def lanes(self) -> int:
        """Orders to have under way: a few more than tasks can run, which makes a cluster that grows on demand grow."""
        slots = self.slots
        if self.context is not None:
            with self._jvm():
                slots = self.context.defaultParallelism // int(self.context.getConf().get("spark.task.cpus") or 1)
        return slots + slots // 4 + 1 if slots > 2 else max(slots, 1)

    def check(self) -> None:
        """Raises ClusterLost when the driver's JVM or Connect server is gone, or no executor has been there for `start_seconds`."""
        now = time.monotonic()
        if self.server:
            if _answers(self.server):
                self.heard = now
            elif now - self.heard > _SILENT_SECONDS:
                raise ClusterLost(f"lost Spark Connect at {self.server[0]}:{self.server[1]}; once it runs again, the same command resumes")
            return
        assert self.context is not None
        with self._jvm():
            scala = self.context._jsc.sc()
            if scala.isStopped():
                raise ClusterLost(f"Spark ended this application{self._see()}; once its cluster runs again, the same command resumes")
            if scala.isLocal() or scala.getExecutorMemoryStatus().size() > 1:  # the driver counts as one
                self.heard = now
        if now - self.heard > self.settings.start_seconds:
            raise ClusterLost(
                f"for {self.settings.start_seconds:g} s Spark at {self.context.master} has had no executor{self._see()}: do its workers "
                f"live, and have they the cores and memory that an executor asks for? The same command resumes"
            )

    def tag(self, tag: str) -> None:
        """Marks the jobs that this thread is about to start. A session's own tags are each thread's own, but on Connect."""
        if self.context is None:
            self.spark.addTag(tag)
        else:
            self.context.addJobTag(tag)

    def cancel(self, tag: str) -> None:
        """Ends the jobs with this tag and the Python workers of their tasks, if anybody is there to do it."""
        with contextlib.suppress(Py4JError, OSError, PySparkException):
            if self.context is not None:
                self.context.cancelJobsWithTag(tag)
            elif self.server and _answers(self.server):
                self.spark.interruptTag(tag)

    def profile(self, wanted: Any) -> ResourceProfile | None:
        """What a task of the phase claims beside the session's spark.task.cpus. Raises UsageError where its GPUs cannot be had.

        More CPUs are claimed only where executors are known to have them: else Spark would wait for them without end.
        """
        if self.context is None:
            return None if not wanted.gpus else _profile(wanted.gpus, 0)
        conf, master = self.context.getConf(), str(self.context.master)
        if wanted.gpus and not conf.get("spark.executor.resource.gpu.amount"):
            raise UsageError(
                "this phase needs a GPU for each worker, and the Spark executors have none: say how many each has and how they are found, "
                "engine.conf={spark.executor.resource.gpu.amount: 1, spark.executor.resource.gpu.discoveryScript: PATH}"
            )
        cores, cpus = int(conf.get("spark.executor.cores") or 0), math.ceil(wanted.cpus)
        fits = not self.settings.workers and int(conf.get("spark.task.cpus") or 1) < cpus <= cores
        claims = cpus if fits and master.startswith(("spark://", "yarn", "k8s://")) else 0
        return _profile(wanted.gpus, claims) if wanted.gpus or claims else None

    @contextlib.contextmanager
    def _jvm(self) -> Any:
        try:
            yield
        except (Py4JError, OSError) as error:
            raise ClusterLost(f"the JVM of the Spark driver is gone{self._see()}; the same command resumes") from error

    def _see(self) -> str:
        self.keep_log = True
        return f" (details in {self.log})" if self.log else ""


def _profile(gpus: float, cpus: int) -> ResourceProfile:
    requests = TaskResourceRequests()
    if gpus:
        requests.resource("gpu", gpus)
    if cpus:
        requests.cpus(cpus)
    return ResourceProfileBuilder().require(requests).build


# -- sessions

_current: Cluster | None = None


def connect(settings: EngineSettings) -> Cluster:
    """The session that is there already, else that of spark-submit, else one of our own on `engine.master`.

    `engine.master` is local[N], spark://host:port, local-cluster[executors,cores,MiB], yarn, k8s://…, or sc://host:port of a
    Spark Connect server; without it the Spark configuration's, else local. A session of our own is started once in a process,
    and again when other settings ask for another. Raises UsageError.
    """
    global _current
    asked = (_master(settings), tuple(sorted(settings.conf.items())))
    if _current and _is_alive(_current):
        if _current.asked in (None, asked):
            _current.settings, _current.heard = settings, time.monotonic()
            return _current
        _refuse_silence(_said(settings))
        _current.spark.stop()
    there = SparkSession.getActiveSession() or getattr(SparkSession, "_instantiatedSession", None)
    if there is not None and not (_current and _current.asked):
        _current = _existing(there, settings)
    elif _said(settings).startswith("sc://"):
        _current = _remote(settings)
    else:
        _current = _classic(settings)
    _current.asked = None if there is not None and _current.spark is there else asked
    return _current


def _is_alive(cluster: Cluster) -> bool:
    if cluster.server:
        return _answers(cluster.server)
    try:
        return cluster.spark._jsparkSession is not None and not cluster.spark.sparkContext._jsc.sc().isStopped()
    except (Py4JError, OSError, AttributeError):
        return False


def _existing(spark: SparkSession, settings: EngineSettings) -> Cluster:
    """A notebook's own session."""
    client = getattr(spark, "client", None)
    if client is None:
        return Cluster(spark, None, settings)
    return Cluster(spark, None, settings, server=(str(client.host), int(client._builder._port)), slots=_slots(spark))


def _remote(settings: EngineSettings) -> Cluster:
    """A session on a Spark Connect server."""
    master = _said(settings)
    server = _split(master.removeprefix("sc://"), 15002, master)
    _refuse_silence(master)
    try:
        spark = SparkSession.builder.remote(master).getOrCreate()
        slots = _slots(spark)
    except ImportError as error:
        raise UsageError(f"Spark Connect needs more packages ({error}): run  pip install 'curate-vlm[spark]'") from None
    except Exception as error:  # of gRPC or of Spark: whatever keeps a first job from working
        told = f"no work can be done at engine.master={master}: {last_line(str(error))}"
        raise refusal(str(error)) or UsageError(told) from None
    return Cluster(spark, None, settings, server=server, slots=slots)


def _slots(spark: SparkSession) -> int:
    """Tasks that a Connect server can run at once, which it does not tell: as many as it cuts a range into."""
    from curate.engines.spark_worker import OUTCOMES, count

    return len(spark.range(1 << 12).mapInArrow(count, OUTCOMES).collect())


def _classic(settings: EngineSettings) -> Cluster:
    """A session whose driver is a JVM beside this process: of spark-submit, or started here."""
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        _set_homes()
        _find_java()
    conf = _conf(settings, submitted)
    master = conf.get("spark.master") or ""
    _refuse_silence(master)
    log = None if submitted else _log()
    try:
        if not submitted and SparkContext._gateway is None:
            SparkContext._ensure_initialized(gateway=_gateway(conf, log), conf=conf)
        context = _context(conf, master, log)
    except (PySparkException, Py4JError, OSError, ValueError) as error:
        raise UsageError(f"Spark cannot start on engine.master={master}: {last_line(str(error))} (details in {log})") from None
    return Cluster(SparkSession(context), None, settings, log)


def _context(conf: SparkConf, master: str, log: Path | None) -> SparkContext:
    """Made in a thread: Spark tries a master that does not answer as one for a minute, and takes SIGINT for itself elsewhere."""
    made: list[SparkContext | Exception] = []

    def make() -> None:
        try:
            made.append(SparkContext(conf=conf))
        except Exception as error:
            made.append(error)

    thread = threading.Thread(target=make, name="spark start", daemon=True)
    thread.start()
    thread.join(_REGISTER_SECONDS if master.startswith("spark://") else None)
    if not made:
        raise UsageError(
            f"what answers at engine.master={master} is no Spark master of this version {pyspark.__version__} (details in {log})"
        )
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]


def _conf(settings: EngineSettings, submitted: bool) -> SparkConf:
    """What spark-submit or spark-defaults.conf says goes before ours, and what engine.conf says before both."""
    conf = SparkConf() if submitted else SparkConf(loadDefaults=False)
    if not submitted:
        conf.set("spark.master", _master(settings))
    ours = dict(OURS)
    if str(conf.get("spark.master")).startswith("local["):
        ours["spark.ui.enabled"] = "false"
    for name, value in ours.items():
        if not conf.contains(name):
            conf.set(name, value)
    for name, value in settings.conf.items():
        conf.set(name, value)
    return conf


def _said(settings: EngineSettings) -> str:
    """What the settings call Spark's master."""
    return settings.master or settings.address


def _master(settings: EngineSettings) -> str:
    """On its own machine Spark fails a job when a task fails once, unless the master says how often it may."""
    master = _said(settings) or os.environ.get("MASTER") or f"local[{settings.workers or '*'}]"
    return re.sub(r"^local\[([^,\]]+)\]$", r"local[\1,4]", "local[1]" if master == "local" else master)


def _gateway(conf: SparkConf, log: Path | None) -> Any:
    assert log is not None
    with log.open("ab") as stream:
        return launch_gateway(conf, {"stdout": stream, "stderr": stream})  # type: ignore[no-untyped-call]


def _log() -> Path:
    """Where Spark's JVM writes what it would write to the terminal; removed at a good end."""
    handle, name = tempfile.mkstemp(prefix="curate-spark-", suffix=".log")
    os.close(handle)
    return Path(name)


@atexit.register
def _stop() -> None:
    if _current is None or _current.asked is None:
        return
    if not _current.server:
        with contextlib.suppress(Exception):  # the JVM ends with this process in any case
            _current.spark.stop()
    if _current.log and not _current.keep_log:
        _current.log.unlink(missing_ok=True)


def _set_homes() -> None:
    """An installed pyspark brings its own Spark: that of SPARK_HOME may be another version. Its configuration still counts."""
    home = Path(pyspark.__file__).parent
    if (home / "jars").is_dir():
        other = os.environ.get("SPARK_HOME")
        if other and Path(other) != home:
            os.environ.setdefault("SPARK_CONF_DIR", str(Path(other) / "conf"))
        os.environ["SPARK_HOME"] = str(home)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def _find_java() -> None:
    """Raises UsageError without Java 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    try:
        said = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        where = f"JAVA_HOME={home} has none" if home else "there is none on the path, and JAVA_HOME is not set"
        raise UsageError(
            f"Spark needs Java 17 or newer, and {where}: install one (Debian: openjdk-17-jre-headless) or set JAVA_HOME"
        ) from None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    number = int(found[2] if found and found[1] == "1" and found[2] else found[1]) if found else 17
    if number < 17:
        raise UsageError(f"Spark needs Java 17 or newer, and {java or 'java'} is Java {number}: install one or set JAVA_HOME")


# -- addresses and words


def _refuse_silence(master: str) -> None:
    """Raises UsageError when nobody takes connections at an address; Spark would try for a minute, gRPC for ten."""
    usual = {"spark": 7077, "sc": 15002}.get(master.partition("://")[0])
    if usual is None:
        return
    servers = [_split(one, usual, master) for one in master.partition("://")[2].split(",")]
    if not any(_answers(server) for server in servers):
        raise UsageError(f"nobody answers at engine.master={master}: is the address right, and does Spark run there?")


def _split(server: str, usual: int, master: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\]]+\]|[^:/;]+)(?::(\d+))?(?:[/;].*)?", server)
    if not found:
        raise UsageError(f"engine.master={master} is no address of Spark: give  spark://HOST:PORT  or  sc://HOST:PORT")
    return found[1].strip("[]"), int(found[2] or usual)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


_HOPELESS = {
    r"No module named '(curate|pyarrow|pyspark)": "curate-vlm is not installed in the Python of the Spark executors",
    r"Can't get attribute|AttributeError: module 'curate": "the Spark executors have another curate than the driver",
    r"PYTHON_VERSION_MISMATCH|different version[^:]*: (?:than )?": "the Python of the Spark executors is of another version",
    r"Cannot run program": "the Spark executors have no Python at the driver's path",
}


def refusal(said: str) -> CurateError | None:
    """What a worker refused to do, or what no second try would help, found in the many lines that Spark makes of it."""
    found = re.search(r"^\s*curate\.errors\.(\w+): (.*)$", said, re.MULTILINE)
    kind = getattr(errors, found[1], None) if found else None
    if found and isinstance(kind, type) and issubclass(kind, CurateError) and kind is not errors.MissingExtra:
        return kind(found[2])
    for pattern, told in _HOPELESS.items():
        if re.search(pattern, said):
            return UsageError(
                f"{told}: install the same there, or set PYSPARK_PYTHON and spark.pyspark.python ({last_line(said, pattern)})"
            )
    return None


def last_line(said: str, pattern: str = "") -> str:
    """The most telling of the lines that Spark says: that with the pattern, or the first that is no frame of a trace."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.lstrip().startswith(("at ", "File ", "Traceback"))]
    return next((line for line in lines if pattern and re.search(pattern, line)), lines[0] if lines else "no reason given")[:300]
