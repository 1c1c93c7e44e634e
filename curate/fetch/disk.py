"""The disk under a pool: no part is begun that would fill it, and its faults stop the run instead of failing rows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from curate.errors import LocalFault
from curate.store import Pool

_ROW_BYTES = 2048  # of a tar's headers, a caption, and rows of tables


@dataclass
class Disk:
    """Refuses to begin a part that would fill the disk, going by the parts that this worker did before and has in hand."""

    row_bytes: float = 24 << 10  # a picture of 256 pixels with its caption, until one part is done
    _open: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def room(self, pool: Pool, part: int, rows: int) -> Iterator[None]:
        """Counts a part as under way; raises LocalFault when less than twice is free of what all of them may bring."""
        with self._lock:
            self._open[part] = rows
            free, needed = pool.free_bytes(), int(2 * sum(self._open.values()) * self.row_bytes)
        try:
            if free < needed:
                raise LocalFault(
                    f"no room at {pool.scratch} to begin part {part}: {free >> 10:,} KiB free, {needed >> 10:,} KiB wanted; "
                    f"nothing is lost, make room and run the same command again"
                )
            yield
        finally:
            with self._lock:
                del self._open[part]

    def learn(self, sizes_bytes: Sequence[object]) -> None:
        """Takes the mean size of a part's new pictures for that of the next; one entry for each request, None without a picture."""
        known = [size for size in sizes_bytes if isinstance(size, int)]
        if known:
            self.row_bytes = sum(known) / len(sizes_bytes) + _ROW_BYTES


@contextlib.contextmanager
def local_faults(pool: Pool) -> Iterator[None]:
    """Rows never fail because of this machine's disk or descriptors; the run stops and can be resumed."""
    try:
        yield
    except OSError as error:
        place = error.filename or pool.path
        raise LocalFault(f"{place}: {error.strerror or error}; nothing is lost, run the same command again") from error
