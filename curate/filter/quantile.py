"""The k-th largest of any number of values, exactly, by counting them: no sort, and memory that does not grow with them.

The bits of an IEEE 754 number, with the sign bit turned for positive numbers and all bits for negative ones, are an integer that
orders as the numbers do (Herf: Radix tricks, 2001). Each pass counts the values by the next 16 bits, among those that agree with
the answer so far: two passes for float32, four for float64. Counts of several readers add up, so a pass may be spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

_STEP = 16


def kth_largest(read: Callable[[], Iterable[NDArray[np.floating]]], k: int) -> tuple[float, int]:
    """The `k`-th largest value, from 1, and how many values are larger than it.

    `read` gives all values, batch by batch, each time it is called: float32 or float64, always the same, none of them NaN.
    -0.0 and 0.0 are one value, as in SQL. Raises IndexError when there are fewer than `k`.
    """
    known, above, bits = 0, 0, _STEP
    width = _STEP
    while bits <= width:
        counts = np.zeros(1 << _STEP, np.int64)
        for values in read():
            width = values.dtype.itemsize * 8
            counts += _counted(_ordered(values), known, bits, width)
        more = np.cumsum(counts[::-1])[::-1]  # values that are as large as each bin, or larger
        if not 1 <= k - above <= more[0]:
            raise IndexError(f"there are fewer than {k} values")
        place = int(np.flatnonzero(more >= k - above)[-1])
        known, above, bits = (known << _STEP) + place, above + int(more[place] - counts[place]), bits + _STEP
    return _number(known, width), above


def _ordered(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Integers of the same width that order as the values do."""
    width = values.dtype.itemsize * 8
    bits = (values + values.dtype.type(0)).view(np.dtype(f"u{width // 8}")).astype(np.uint64)  # -0.0 + 0.0 is 0.0
    sign = np.uint64(1 << (width - 1))
    return np.where(bits & sign, ~bits & np.uint64((1 << width) - 1), bits | sign)


def _counted(ordered: NDArray[np.uint64], known: int, bits: int, width: int) -> NDArray[np.int64]:
    """How many values have each of the 16 bits that end after `bits`, among those that begin with `known`."""
    head = ordered >> np.uint64(width - bits)
    mine = head[(head >> np.uint64(_STEP)) == np.uint64(known)]
    return np.bincount((mine & np.uint64((1 << _STEP) - 1)).astype(np.int64), minlength=1 << _STEP)


def _number(ordered: int, width: int) -> float:
    """The value that has this place in the order."""
    sign = 1 << (width - 1)
    bits = ordered ^ sign if ordered & sign else ~ordered & ((1 << width) - 1)
    return float(np.array([bits], np.dtype(f"u{width // 8}")).view(np.dtype(f"f{width // 8}"))[0])
