"""A real Ray cluster on this machine: nodes that are processes of their own, and can be killed like machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests.ports import free_port

# A node that is killed is noticed in two seconds instead of a quarter of a minute.
_ALERT = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
_SIZE = {"num_cpus": 2, "memory": 4 << 30, "object_store_memory": 80 << 20}


@dataclass
class Nodes:
    """A head and further nodes, each with a raylet of its own."""

    cluster: object
    address: str
    dashboard: str  # where jobs are submitted
    count: int
    workers: list[object] = field(default_factory=list)

    def add(self) -> None:
        """One more node."""
        self.workers.append(self.cluster.add_node(**_SIZE, dashboard_agent_listen_port=free_port()))

    def refill(self) -> None:
        """As many nodes as there were in the beginning, in place of those that were killed."""
        while len(self.raylets()) < self.count - 1:
            self.add()

    def end_head(self) -> None:
        """Kills the head as a power cut would: its control service and its raylet."""
        for kind in ("gcs_server", "raylet"):
            self.cluster.head_node.all_processes[kind][0].process.kill()

    def raylets(self) -> list[psutil.Process]:
        """Of the nodes beside the head's that live."""
        pids = [node.all_processes["raylet"][0].process.pid for node in self.workers]
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@contextmanager
def nodes(count: int, dashboard: bool = False) -> Iterator[Nodes]:
    """A cluster of so many nodes, until the block ends."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    # Ray's own choice of a dashboard port is 8265 or nothing, which another cluster of this machine may have
    head = {**_SIZE, "include_dashboard": dashboard, "dashboard_port": free_port(), "_system_config": _ALERT}
    head["dashboard_agent_listen_port"] = free_port()  # through which jobs are submitted; Ray's own choice is one for all clusters
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        found = Nodes(cluster, cluster.address, f"http://{cluster.head_node.webui_url}", count)
        for _ in range(count - 1):
            found.add()
        yield found
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
