"""Lists of ids that say which rows to keep: text, Parquet, or DataComp's array of two 64-bit numbers per uid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import InputError
from curate.uids import PAIR, are_uids, pairs_of

ID_COLUMNS = ("uid", "sample_id", "url_id")
_SCAN = 1 << 20


class TextIds:
    """Ids as texts, held in memory."""

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids

    def contain(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of the ids are in the list."""
        return np.asarray(pc.fill_null(pc.is_in(ids, value_set=self._ids), False).to_numpy(zero_copy_only=False))


class PairIds:
    """DataComp uids (32 hex digits as two uint64, sorted); the file is mapped, so memory does not grow with it."""

    def __init__(self, pairs: npt.NDArray[np.void]) -> None:
        self._pairs = pairs

    def contain(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of the ids are in the list; what is not 32 hex digits never is."""
        is_uid = are_uids(ids)
        wanted = pairs_of(ids.filter(pa.array(is_uid)))
        at = np.searchsorted(self._pairs, wanted)
        inside = at < len(self._pairs)
        found = is_uid.copy()
        found[is_uid] = inside & (self._pairs[np.where(inside, at, 0)] == wanted) if len(self._pairs) else False
        return found


Ids = TextIds | PairIds


def read_ids(path: str) -> Ids:
    """The ids in a .txt (one a line), .parquet (column uid, sample_id, url_id or the only one) or .npy file."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".npy":
            return _pair_file(path)
        if suffix == ".parquet":
            return TextIds(_parquet_ids(path))
        if suffix == ".txt":
            return TextIds(pa.array([line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()], pa.string()))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a list of ids ({str(error).splitlines()[0]})") from error
    raise InputError(f"{path}: a list of ids ends in .txt, .parquet or .npy")


def _parquet_ids(path: str) -> pa.Array:
    names: Sequence[str] = pq.read_schema(path).names
    column = next((name for name in ID_COLUMNS if name in names), names[0] if len(names) == 1 else None)
    if column is None:
        raise InputError(f"{path}: none of its columns is {', '.join(ID_COLUMNS)} (there are {', '.join(names)})")
    found: pa.Array = pq.read_table(path, columns=[column])[column].cast(pa.string()).combine_chunks()
    return found


def _pair_file(path: str) -> PairIds:
    pairs = np.load(path, mmap_mode="r", allow_pickle=False)
    kind = pairs.dtype
    if pairs.ndim != 1 or kind.names is None or [kind[name].str[1:] for name in kind.names] != ["u8", "u8"]:
        raise InputError(f"{path}: DataComp's uid lists hold two uint64 per uid, this array holds {kind} in {pairs.ndim} dimensions")
    pairs = pairs.view(PAIR) if all(kind[name].str[0] == "<" for name in kind.names) else pairs.astype(PAIR)
    return PairIds(pairs if _is_sorted(pairs) else np.sort(pairs))


def _is_sorted(pairs: npt.NDArray[np.void]) -> bool:
    for start in range(0, max(len(pairs) - 1, 0), _SCAN):
        high, low = pairs["f0"][start : start + _SCAN + 1], pairs["f1"][start : start + _SCAN + 1]
        if np.any((high[:-1] > high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] > low[1:]))):
            return False
    return True
