"""Bounded bytes: what one worker may hold of bodies that are being read or decoded, and where finished images wait."""

from __future__ import annotations

import os
import tempfile
from typing import BinaryIO

UNTOLD_BYTES = 4 << 20


class ByteBudget:
    """Counts reserved bytes of one event loop against a capacity.

    A body of announced length reserves all of it before it is read. One of unknown length reserves `UNTOLD_BYTES` and,
    when it turns out longer, the rest of the largest: one such body at a time, out of a share that first reservations
    leave free. So nobody who waits holds what another waits for.
    """

    def __init__(self, capacity: int, largest: int) -> None:
        self._common = max(capacity - largest, min(capacity, largest))
        self._grown: object = None
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
