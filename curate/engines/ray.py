"""The Ray engine: actors that open the phase once and are sent part names; images never pass through Ray.

Why plain actors and not Ray Data: its map over part names tries a part whose worker died again without end (measured with
Ray 2.60: 24 tries of one poisoned part in two minutes, and the dataset never finished), knows no time limit for one part,
and cannot be told to do a suspected part alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from curate.engines.base import EngineSettings, PartFailure
from curate.engines.crew import Crew, Worker
from curate.engines.ray_cluster import Cluster, connect
from curate.engines.skew import refuse_skew, versions
from curate.engines.work import Answer, answer, environment, few_arenas, opened
from curate.errors import ClusterLost, CurateError, UsageError
from curate.stage import PartReport, PartTask, Phase, Resources

_NEW_NODES_SECONDS = 15.0  # how often to look whether the cluster has grown


def make(settings: EngineSettings) -> RayEngine:
    """What `curate.run.make_engine` asks every engine's module for."""
    return RayEngine(settings)


class RayEngine:
    """Actors on a Ray cluster: that of `engine.address`, that of RAY_ADDRESS, or one started on this machine for this run."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """See `Engine.each`. Raises UsageError for a wrong address or other software on the nodes, ClusterLost."""
        if not tasks:
            return
        with _lost_as_one_line():
            crew = _Actors(self.settings, phase, tasks, connect(self.settings))
            yield from crew.outcomes()


@contextlib.contextmanager
def _lost_as_one_line() -> Iterator[None]:
    """What Ray raises when nothing works any more, as the line that a person needs."""
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise ClusterLost(f"lost the Ray cluster ({_first_line(error)}): once it runs again, the same command resumes") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class _Hand:
    """A worker process on some node. Its methods answer with values: what it raises would come back in Ray's clothes."""

    def __init__(self, blob: bytes, driver: Mapping[str, str]) -> None:
        self.blob, self.driver, self.stack = blob, driver, ExitStack()

    def open(self, threads: int) -> Answer:
        """Opens the phase, unless this node's software is not the driver's."""
        os.environ.update(environment(threads))
        few_arenas()
        try:
            refuse_skew(self.driver, f"the Ray node {ray.util.get_node_ip_address()}")
        except CurateError as error:
            return "stop", -1, error
        self.do = opened(ray.cloudpickle.loads(self.blob), self.stack)
        return "ready", -1, None

    def work(self, task: PartTask) -> Answer:
        """Does one part."""
        return answer(self.do, task)


class _Actor(Worker):
    def __init__(self, handle: Any, threads: int, cluster: Cluster) -> None:
        super().__init__()
        self.handle, self.cluster = handle, cluster
        self.refs = {handle.open.remote(threads)}  # what it owes an answer to

    def send(self, task: PartTask) -> None:
        self.refs.add(self.handle.work.remote(task))

    def dismiss(self) -> None:
        if not self.cluster.lost:  # else Ray would wait for an answer
            with contextlib.suppress(RayError, ConnectionError):
                ray.kill(self.handle)


class _Actors(Crew):
    """The crew of one phase: actors, spread over the nodes."""

    def __init__(self, settings: EngineSettings, phase: Phase, tasks: Sequence[PartTask], cluster: Cluster) -> None:
        self.cluster, self.parts = cluster, len(tasks)
        self.demand = demand(phase.resources, settings.workers, cluster.nodes())
        super().__init__(settings, phase.resources.parts_at_once, tasks, settings.workers or self._room())
        self.phase, self.blob = phase.name, ray.cloudpickle.dumps(phase)
        self.kind = ray.remote(
            num_cpus=self.demand.cpus, num_gpus=self.demand.gpus, memory=self.demand.memory_bytes, max_restarts=0, max_task_retries=0,
            max_concurrency=self.at_once, scheduling_strategy="SPREAD",
        )(_Hand)  # fmt: skip
        self.looked = self.placed = time.monotonic()

    def hire(self) -> Worker:
        return _Actor(self.kind.remote(self.blob, versions()), self.settings.threads_per_worker, self.cluster)

    def listen(self, seconds: float) -> list[tuple[Worker, Answer | None]]:
        owing = {ref: worker for worker in self.workers if isinstance(worker, _Actor) for ref in worker.refs}
        some, _ = ray.wait(list(owing), timeout=seconds)
        self._grow()
        if any(worker.ready for worker in self.workers):
            self.placed = time.monotonic()
        if not some:
            self._look_around()
            return []
        said, _ = ray.wait(list(owing), num_returns=len(owing), timeout=0)
        return [(owing[ref], self._answer(owing[ref], ref)) for ref in said]

    def _answer(self, worker: _Actor, ref: Any) -> Answer | None:
        worker.refs.discard(ref)
        try:
            said: Answer = ray.get(ref)
        except RayTaskError as error:  # our own methods do not raise: the class itself could not be loaded there
            cause = str(error).strip().splitlines()[-1]
            raise UsageError(
                f"the Ray nodes cannot load this curate ({cause}): install the same curate-vlm there, or submit with --working-dir"
            ) from None
        except RayError:
            return None
        return said

    def _look_around(self) -> None:
        """While nothing happens: whether the cluster still is there, and has room for anybody."""
        self.cluster.check()
        if time.monotonic() - self.placed > self.settings.start_seconds:
            raise ClusterLost(f"{self.phase}: {self._no_room()}")

    def _grow(self) -> None:
        """More workers where nodes have joined; fewer nodes need no care, the workers they took along wait for room."""
        if not self.settings.workers and time.monotonic() - self.looked > _NEW_NODES_SECONDS and self.cluster.answers():
            self.looked = time.monotonic()
            self.workers += [self.hire() for _ in range(min(self._room(), self.parts) - len(self.workers))]

    def _room(self) -> int:
        return max(1, sum(fits(self.demand, node) for node in self.cluster.nodes()))

    def _no_room(self) -> str:
        wanted = f"{self.demand.cpus:g} CPUs, {self.demand.gpus:g} GPUs and {self.demand.memory_bytes / 2**30:.1f} GiB"
        largest = "no node is that large" if not any(fits(self.demand, node) for node in self.cluster.nodes()) else "others use them"
        return f"in {self.settings.start_seconds:g} s no worker could be started on {wanted} ({largest}); the same command resumes"


def demand(said: Resources, workers: int, nodes: Sequence[Mapping[str, float]]) -> Resources:
    """What one actor claims: the phase's wish, but never more CPUs than the largest node has or, of a given number of
    workers, than a worker's share of the cluster; so `workers` means the same on every engine."""
    counts = [node.get("CPU", 0.0) for node in nodes]
    cpus = min(said.cpus, max(counts, default=1.0) or 1.0)
    if workers:
        while cpus > 0.1 and sum(count // cpus for count in counts) < workers:
            cpus = math.ceil(cpus) - 1 if cpus > 1 else round(cpus / 2, 4)
    return Resources(cpus, said.gpus, said.memory_bytes, said.parts_at_once)


def fits(wanted: Resources, node: Mapping[str, float]) -> int:
    """How many such workers a node has room for."""
    pairs = [("CPU", wanted.cpus), ("GPU", wanted.gpus), ("memory", wanted.memory_bytes)]
    return int(min(node.get(name, 0.0) // amount for name, amount in pairs if amount))
