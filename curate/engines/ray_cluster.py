"""How a Ray cluster is found or started, how its noise is kept off the terminal, and how its loss is noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import ray

from curate.engines.base import EngineSettings, worker_count
from curate.errors import ClusterLost, UsageError

_STORE_BYTES = 100 << 20  # of a cluster that we start: part names need next to nothing, and Ray's default is a third of memory
_CONNECT_SECONDS = 5.0
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # HTTP/2's first frame, with nothing in it
_LOOK_SECONDS = 5.0
_SILENT_SECONDS = 15.0  # a head that is away for longer than this is lost; Ray itself would wait for a minute and then abort


@dataclass
class Cluster:
    """The cluster that this process speaks to."""

    asked: str  # what the settings said
    head: tuple[str, int]  # where its control service listens, or its client server
    node: str  # through which this process speaks to the others
    heard: float  # when the head last answered
    looked: float  # when the nodes were last looked at
    lost: bool = False

    def check(self) -> None:
        """Raises ClusterLost when the head has been away for long, or the node of this process is dead."""
        now = time.monotonic()
        if self.answers():
            self.heard = now
        elif now - self.heard > _SILENT_SECONDS:
            self._lose(f"its head {self.head[0]}:{self.head[1]} is silent")
        elif now - self.heard < 1.0 and now - self.looked > _LOOK_SECONDS:
            self.looked = now
            if not any(node["NodeID"] == self.node for node in ray.nodes() if node["Alive"]):
                self._lose("the node of this machine is dead")

    def answers(self) -> bool:
        """Whether the head does, now; asked something while it is away, Ray would wait, and end this process after a while."""
        return _answers(self.head)

    def _lose(self, why: str) -> NoReturn:
        self.lost = True
        raise ClusterLost(f"lost the Ray cluster: {why}; once it runs again, the same command resumes")

    def nodes(self) -> list[Mapping[str, float]]:
        """Resources of each living node."""
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


_current: Cluster | None = None


def connect(settings: EngineSettings) -> Cluster:
    """The cluster that the settings name; it is joined or started once in a process.

    `engine.address` is host:port or ray://host:port of a running cluster, `auto` for the one on this machine, `local` for
    one of our own; without it RAY_ADDRESS counts, and where that is not set either, `local`. Raises UsageError.
    """
    global _current
    asked = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if _current and _current.asked == asked and not _current.lost and ray.is_initialized():
        return _current
    if _current:
        ray.shutdown()
    with _quiet():
        _join(asked, settings)
    context, now = ray.get_runtime_context(), time.monotonic()
    head = _split(asked if asked.startswith("ray://") else context.gcs_address)
    _current = Cluster(asked, head, context.get_node_id(), heard=now, looked=now)
    return _current


def _join(asked: str, settings: EngineSettings) -> None:
    if ray.is_initialized():  # a notebook's own connection
        return
    if asked == "local":
        cpus = worker_count(settings)
        os.environ.setdefault("RAY_worker_niceness", "0")  # by itself Ray gives way to everything else on the machine
        ray.init("local", num_cpus=cpus, object_store_memory=_STORE_BYTES, include_dashboard=False, **_SILENT)
        return
    if asked != "auto" and not _answers(_split(asked)):
        raise UsageError(
            f"no Ray cluster answers at engine.address={asked}: start one with  ray start --head  or name another "
            f"(host:port, ray://host:port, auto, local)"
        )
    try:
        ray.init(asked, **_SILENT)
    except (RuntimeError, ConnectionError, ValueError, TimeoutError, ray.exceptions.AuthenticationError) as error:
        told = " ".join(str(error).split())[:300]
        if os.environ.get("RAY_AUTH_MODE") != "token":  # Ray says of a cluster that wants one only that it cannot be reached
            told += "; if it wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` says on its head"
        raise UsageError(f"cannot join the Ray cluster at engine.address={asked}: {told}") from None


_SILENT = {"log_to_driver": False, "configure_logging": False, "logging_level": "CRITICAL"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray tells its developers a lot, takes SIGTERM for itself, and waits for a lost head for a minute; none of this is for a user."""
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "40")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    handler, terminal, nowhere = signal.getsignal(signal.SIGTERM), os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)  # what its C++ half says on the way has no other switch; what goes wrong comes as an exception
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(f"engine.address={address} is no address of a Ray cluster: give host:port, ray://host:port, auto or local")
    return host.strip("[]"), int(port)


def _answers(address: tuple[str, int]) -> bool:
    """Whether somebody there speaks HTTP/2, as gRPC does: Ray itself would wait for a stranger for minutes."""
    try:
        with socket.create_connection(address, _CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return True
            connection.settimeout(_CONNECT_SECONDS)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
            return connection.recv(9)[3:4] == _SETTINGS[3:4]
    except OSError:
        return False
