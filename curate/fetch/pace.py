"""The byte-rate floor: a body that trickles is given up long before the deadline, so that it holds no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class TooSlow(Exception):
    """A body fell below the floor."""


class Pace:
    """Raises TooSlow out of its `async with` block once the next `step_bytes` took longer than `seconds`.

    So every stretch of `seconds` brings `step_bytes` or is the last one. A rate of zero turns it off.
    """

    def __init__(self, bytes_per_second: float, seconds: float) -> None:
        self._step_bytes = bytes_per_second * seconds
        self._seconds = seconds if self._step_bytes else None
        self._left_bytes = self._step_bytes
        self._timeout = asyncio.timeout(self._seconds)

    def received(self, size: int) -> None:
        """Counts bytes of the body; enough of them buy the next stretch of time."""
        self._left_bytes -= size
        if self._left_bytes <= 0:
            self._restart()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in which the body waits for this machine does not count against its server."""
        self._timeout.reschedule(None)
        yield
        self._restart()

    def _restart(self) -> None:
        self._left_bytes = self._step_bytes
        if self._seconds is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def __aenter__(self) -> Pace:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise TooSlow from error
