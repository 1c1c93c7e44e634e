"""Bounded bytes: what one worker may hold of bodies that are being read or decoded, and where finished images wait."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from typing import BinaryIO

UNTOLD_BYTES = 4 << 20


class ByteBudget:
    """Counts reserved bytes of one event loop against a capacity; waiters are served in order.

    A body of announced length reserves all of it before it is read. One of unknown length reserves `UNTOLD_BYTES` and,
    when it turns out longer, `largest` bytes: one such body at a time, out of a share that first reservations leave
    free. So nobody who waits holds what another waits for.
    """

    def __init__(self, capacity: int, largest: int) -> None:
        self._capacity = capacity
        self._common = max(capacity - largest, min(capacity, largest))
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._growth = asyncio.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes reserved at this moment."""
        return self._used

    async def reserve(self, size: int) -> None:
        """Waits until `size` more bytes fit; one reservation alone always does."""
        if not self._waiting and self._fits(size):
            self._used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            else:
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
            raise

    async def grow(self, size: int) -> None:
        """Adds `size` bytes to a reservation; `shrink` must follow."""
        await self._growth.acquire()
        self._used += size

    def shrink(self, size: int) -> None:
        """Ends a `grow`."""
        self._growth.release()
        self.release(size)

    def release(self, size: int) -> None:
        """Gives bytes back and lets waiters in."""
        self._used -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._used += wanted
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._common or not self._used


class Lease:
    """A body's share of a ByteBudget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0
        self._grown = 0

    async def take(self, size: int) -> None:
        """Reserves `size` bytes before the body is read."""
        await self._budget.reserve(size)
        self._held = size

    async def grow(self, largest: int) -> None:
        """Makes room for a body that turned out longer than `take` reckoned."""
        if not self._grown and largest > self._held:
            await self._budget.grow(largest - self._held)
            self._grown = largest - self._held

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._held + self._grown

    def close(self) -> None:
        """Gives everything back; may be called again."""
        if self._grown:
            self._budget.shrink(self._grown)
        if self._held:
            self._budget.release(self._held)
        self._held = self._grown = 0


class Spill:
    """Images that wait for their turn in a file without a name; one thread puts, another gets. Raises OSError."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._places: list[tuple[int, int]] = []
        self._size = 0

    def put(self, data: bytes) -> int:
        """Writes the bytes; returns the number under which `get` finds them."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, prefix="curate-")  # noqa: SIM115  # closed by close()
        self._places.append((self._size, len(data)))
        self._size += os.pwrite(self._file.fileno(), data, self._size)
        return len(self._places) - 1

    def get(self, number: int) -> bytes:
        """The bytes of a `put`."""
        assert self._file is not None
        offset, size = self._places[number]
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Gives the disk space back."""
        if self._file is not None:
            self._file.close()
