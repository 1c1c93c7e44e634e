"""DataComp's way to list uids: 32 hex digits each, as two 64-bit numbers in a sorted array of NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PAIR = np.dtype([("f0", "<u8"), ("f1", "<u8")])
"""The upper and the lower half, as in the published .npy files."""


def are_uids(texts: pa.Array) -> NDArray[np.bool_]:
    """Which of the texts are 32 hex digits; null is none."""
    return np.asarray(pc.fill_null(pc.match_substring_regex(texts, "^[0-9a-fA-F]{32}$"), False).to_numpy(zero_copy_only=False))


def pairs_of(uids: pa.Array) -> NDArray[np.void]:
    """(n,) of `PAIR`, in the order of the uids, all of which are 32 hex digits."""
    raw = bytes.fromhex("".join(uids.to_pylist()))
    return np.frombuffer(raw, dtype=[("f0", ">u8"), ("f1", ">u8")]).astype(PAIR)
