"""Bounded bytes: what one worker may hold of bodies that are being read or decoded, and where finished images wait."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import BinaryIO

UNTOLD_BYTES = 4 << 20


class ByteBudget:
    """Counts reserved bytes of one worker against a capacity; never blocks, for any thread.

    A body of announced length reserves all of it before it is read. One of unknown length reserves `UNTOLD_BYTES` and,
    when it turns out longer, the rest of the largest: one such body at a time, out of a share that first reservations
    leave free. So nobody who waits holds what another waits for.
    """

    def __init__(self, capacity: int, largest: int) -> None:
        self._common = max(capacity - largest, min(capacity, largest))
        self._used = 0
        self._grown: object = None
        self._released = False
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes reserved at this moment."""
        return self._used

    def reserve(self, told: int | None, most: int) -> int:
        """Bytes reserved for a body of `told` bytes, at least one; 0 when there is no room. One body alone always has room."""
        size = max(1, min(UNTOLD_BYTES if told is None else told, most))
        with self._lock:
            if self._used and self._used + size > self._common:
                return 0
            self._used += size
        return size

    def grow(self, owner: object, size: int) -> bool:
        """Adds to the reservation of `owner`, unless another body has grown and is still there."""
        with self._lock:
            if self._grown is not None:
                return False
            self._grown = owner
            self._used += size
        return True

    def release(self, owner: object, size: int) -> bool:
        """Gives bytes back; True when somebody should look again (see `was_released`)."""
        with self._lock:
            self._used -= size
            if self._grown is owner:
                self._grown = None
            first, self._released = not self._released, True
        return first

    def was_released(self) -> bool:
        """Whether bytes came back since this was asked last."""
        with self._lock:
            found, self._released = self._released, False
        return found


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
