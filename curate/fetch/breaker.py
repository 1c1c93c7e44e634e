"""When this machine is at fault and not the web: wait until it is well again, so that no row fails because of it.

`Outage` judges failures that say nothing about a row while nobody succeeds: a silent resolver, a network without routes.
`Throttle` is for what runs short: descriptors, ports, buffers. Both give up after a while with a LocalFault, which
stops the run; the same command resumes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import LocalFault
from curate.fetch.failures import MachineFault

_PROBE_SECONDS = 1.0
_RESERVED_DESCRIPTORS = 24  # for the part's own files, pipes and the event loop
_PUBLIC = {socket.AF_INET: "198.41.0.4", socket.AF_INET6: "2001:503:ba3e::2:30"}  # a.root-servers.net; nothing is sent to it

_log = logging.getLogger("curate.fetch")


class Outage:
    """One thing of this machine that may be gone for a while; `name` says which, `probe` whether it works at this moment.

    A failed try is the thing's fault when nobody succeeded in its second half and the probe fails too, or when an outage
    ended while it ran. Then all wait: those that failed, and by `ready` those that would be next.
    """

    def __init__(self, name: str, give_up_seconds: float, probe: Callable[[], Awaitable[bool]]) -> None:
        self._name = name
        self._give_up_seconds = give_up_seconds
        self._probe = probe
        self._last_success = 0.0
        self._ended_at = 0.0
        self._watch: asyncio.Task[bool] | None = None
        self._down = False

    def succeeded(self) -> None:
        """Somebody got an answer."""
        self._last_success = time.monotonic()

    def succeeded_lately(self, begun: float) -> bool:
        """Whether anybody succeeded in the second half of a try that began at `begun` (monotonic seconds) and ends now."""
        return self._last_success >= (begun + time.monotonic()) / 2

    def overlaps(self, begun: float) -> bool:
        """Whether an outage goes on, or ended after `begun`."""
        return self._down or self._ended_at > begun

    async def ready(self) -> None:
        """Waits while there is an outage, or a doubt. Raises LocalFault when it lasts too long."""
        while self._watch and not self._watch.done():
            await asyncio.shield(self._watch)

    async def explains(self, begun: float) -> bool:
        """Whether a failure of a try begun at `begun` was an outage; when it was, returns after its end.

        Raises LocalFault when it lasts too long.
        """
        if self._ended_at > begun:
            return True
        if self.succeeded_lately(begun):
            return False
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._until_it_works())
            self._watch.add_done_callback(_hear)
        return await asyncio.shield(self._watch)

    async def _until_it_works(self) -> bool:
        """Probes until something works; False when it did at once."""
        started = time.monotonic()
        try:
            while self._last_success < started:
                if await self._probe():
                    self.succeeded()
                    break
                if not self._down:
                    self._down = True
                    _log.warning("%s; requests wait for it, up to %.0f s", self._name, self._give_up_seconds)
                if time.monotonic() - started >= self._give_up_seconds:
                    raise LocalFault(
                        f"{self._name} for {self._give_up_seconds:.0f} s (see  curate doctor); nothing is lost, run the same command again"
                    )
                await asyncio.sleep(_PROBE_SECONDS)
            if self._down:
                self._ended_at = time.monotonic()
                _log.warning("%s: over after %.0f s", self._name, self._ended_at - started)
            return self._down
        finally:
            self._down = False

    async def close(self) -> None:
        """Ends the probing."""
        if self._watch and not self._watch.done():
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)


def _hear(task: asyncio.Task[bool]) -> None:
    """Takes the exception of a task whose waiters may all be gone."""
    if not task.cancelled():
        task.exception()


class Throttle:
    """Lets fewer requests run at once after this machine ran short of something, and slowly more again."""

    def __init__(self, most: int, give_up_seconds: float) -> None:
        self._limit = float(most)
        self._most = most
        self._give_up_seconds = give_up_seconds
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._short_since: float | None = None
        self._cut_at = 0.0

    @property
    def limit(self) -> int:
        """Requests that may run at once."""
        return max(1, int(self._limit))

    async def ready(self) -> None:
        """Waits until one more may start."""
        while self._open >= self.limit:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            with contextlib.suppress(TimeoutError):  # whoever was called before may not have started after all
                async with asyncio.timeout(1.0):
                    await turn

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request as running."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._wake()

    def succeeded(self) -> None:
        """A request had what it needed of this machine."""
        self._short_since = None
        self._limit = min(float(self._most), self._limit + 1 / self._limit)

    async def shortage(self, error: OSError) -> None:
        """Fewer at once from here on; returns after a moment. Raises LocalFault when nothing went well for long."""
        now = time.monotonic()
        self._short_since = self._short_since or now
        if now - self._short_since >= self._give_up_seconds:
            raise LocalFault(
                f"cannot open a connection: {error.strerror}; raise the limit (ulimit -n) or lower fetch.in_flight, and run it again"
            )
        if now - self._cut_at >= 0.1:  # many fail in one moment, for one cause
            self._cut_at = now
            self._limit = max(1.0, min(self._limit, float(self._open)) * 0.7)
        await asyncio.sleep(0.1)

    def _wake(self) -> None:
        room = self.limit - self._open
        while self._waiting and room > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1


class Connections:
    """What this machine has for connections: descriptors for so many at once, and a network with a way out.

    `descriptors` is how many sockets may be open; a request may hold two, its own and one that is kept for the next.
    """

    def __init__(self, in_flight: int, descriptors: int, give_up_seconds: float) -> None:
        self._throttle = Throttle(max(1, min(in_flight, descriptors // 2)), give_up_seconds)
        self._routed = routed_families()
        self._network = Outage("this machine's network is down", give_up_seconds, self._is_up)

    async def _is_up(self) -> bool:
        return self._routed <= routed_families()

    async def ready(self) -> None:
        """Waits until one more connection may be tried. Raises LocalFault after too long."""
        await self._network.ready()
        await self._throttle.ready()

    def request(self) -> contextlib.AbstractContextManager[None]:
        """Counts one request as running."""
        return self._throttle.request()

    def ended(self, answered: bool) -> None:
        """A request had all it needed of this machine; `answered` says whether a server was reached as well."""
        self._throttle.succeeded()
        if answered:
            self._network.succeeded()

    def broke(self, begun: float) -> MachineFault | None:
        """What to blame for a connection that broke since `begun`, if the network was down meanwhile."""
        return MachineFault(OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))) if self._network.overlaps(begun) else None

    async def explain(self, fault: MachineFault, begun: float) -> bool:
        """Whether what went wrong with a request begun at `begun` was this machine's doing; when so, after it is mended."""
        if fault.unreachable:
            late_answers_count = await self._is_up()  # what was sent before the way out was gone may still be answered
            return await self._network.explains(begun if late_answers_count else time.monotonic())
        await self._throttle.shortage(fault.error)
        return True

    async def close(self) -> None:
        """Ends the probing."""
        await self._network.close()


def spare_descriptors(wanted: int) -> int:
    """How many sockets this process may hold beside its files: raises the soft limit as far as it may and needs to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _open_descriptors() + _RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < used + wanted:
        goal = used + wanted if hard == resource.RLIM_INFINITY else min(hard, used + wanted)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(1, soft - used)


def _open_descriptors() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return 32


def routed_families() -> frozenset[int]:
    """Address families with a way out of this machine, as the kernel says; no packet is sent."""
    return frozenset(family for family, address in _PUBLIC.items() if _has_route(family, address))


def _has_route(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
    except OSError:
        return False
    return True
