"""Bounded bytes: what one worker may hold of bodies that are being read or decoded, and where finished images wait."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

UNTOLD_BYTES = 4 << 20


class ByteBudget:
    """Counts reserved bytes of one event loop against a capacity.

    A body of announced length reserves all of it before it is read. One of unknown length reserves `UNTOLD_BYTES` and,
    when it turns out longer, the rest of the largest: one such body at a time, out of a share that first reservations
    leave free. Those who hold something are asked first when room is given back (`Transport`), so that no two wait for each other.
    """

    def __init__(self, capacity: int, largest: int) -> None:
        self._common = max(capacity - largest, min(capacity, largest))
        self._grown: object = None
        self.on_release: Callable[[], None] = lambda: None  # for the one who lets requests in
        self.used_bytes = 0

    def reserve(self, told: int | None, most: int) -> int:
        """Bytes reserved for a body of `told` bytes, at least one; 0 when there is no room. One body alone always has room."""
        size = max(1, min(UNTOLD_BYTES if told is None else told, most))
        if self.used_bytes and self.used_bytes + size > self._common:
            return 0
        self.used_bytes += size
        return size

    def grow(self, owner: object, size: int) -> bool:
        """Adds to the reservation of `owner`, unless another body has grown and is still there."""
        if self._grown is not None:
            return False
        self._grown = owner
        self.used_bytes += size
        return True

    def release(self, owner: object, size: int) -> None:
        """Gives bytes back."""
        self.used_bytes -= size
        if self._grown is owner:
            self._grown = None
        self.on_release()

    @property
    def is_half_full(self) -> bool:
        """Whether a request that began now would bring a body for which there may be no room."""
        return self.used_bytes > self._common // 2


class Room:
    """How many requests may be open: `total`, and no more of them while bodies fill half of the budget. In order of asking."""

    def __init__(self, total: int, budget: ByteBudget | None = None) -> None:
        self._total, self._budget = total, budget
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        if budget:
            budget.on_release = self._let_in

    async def acquire(self) -> None:
        """Waits for a place."""
        if not self._waiting and self._has_place():
            self._open += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Gives the place back."""
        self._open -= 1
        self._let_in()

    def _has_place(self) -> bool:
        return self._open < self._total and not (self._open and self._budget and self._budget.is_half_full)

    def _let_in(self) -> None:
        while self._waiting and self._has_place():
            turn = self._waiting.popleft()
            if not turn.done():
                self._open += 1
                turn.set_result(None)


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
        view, end = memoryview(data), self._size
        while view:  # a disk that fills up takes a part, and says so at the next write only
            written = os.pwrite(self._file.fileno(), view, end)
            view, end = view[written:], end + written
        self._places.append((self._size, len(data)))
        self._size = end
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
