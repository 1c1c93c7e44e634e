"""MinHash signatures of shingle sets, in bands: sets that share much meet in some band, sets that share little seldom do.

Method: Broder: On the resemblance and containment of documents (SEQUENCES 1997); banding as in Leskovec, Rajaraman, Ullman:
Mining of Massive Datasets, section 3.4. A permutation of the 2³² shingle names is h → a·h + b modulo 2³² with an odd a,
over names that are well mixed before; the probability that two sets have the same smallest image is their Jaccard index J.
A band is `rows` such minima: two sets have an equal one with probability J^rows, and meet in one of `bands` with
1 − (1 − J^rows)^bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.shingles import Hashes, Shingles
from curate.shuffle import mixed


@dataclass(frozen=True)
class Banding:
    """How many bands of how many rows."""

    bands: int
    rows: int

    def chance(self, jaccard: float) -> float:
        """The probability that two sets with this Jaccard index meet."""
        return float(1 - (1 - jaccard**self.rows) ** self.bands)


def banding(threshold: float, recall: float, permutations: int) -> Banding:
    """The most rows, so the fewest vain comparisons, with which a pair at the threshold still meets with the probability `recall`.

    With no number of rows good enough, one row. Uses up to `permutations` minima.
    """
    offered = [Banding(permutations // rows, rows) for rows in range(permutations, 0, -1)]
    return next((one for one in offered if one.chance(threshold) >= recall), offered[-1])


def band_keys(found: Shingles, rows: int, bands: range, seed: int) -> tuple[Hashes, NDArray[np.uint16]]:
    """For each of these bands and each text its key, shape (bands, texts); and the top of one more minimum.

    Equal keys: equal minima in the band, but for chance. The lower 16 bits of a key are 0: with the other number in their place
    keys sort so that those who agree in more than the band stand together.
    """
    names = (found.hashes >> np.uint64(32)).astype(np.uint32)
    factors, offsets = _permutations(seed, bands.stop * rows + 1)

    def minima(row: int) -> NDArray[np.uint32]:
        return np.asarray(np.minimum.reduceat(names * factors[row] + offsets[row], found.starts), np.uint32)

    keys = np.empty((len(bands), len(found.starts)), np.uint64)
    nexts = np.empty(keys.shape, np.uint16)
    for place, band in enumerate(bands):
        key = np.full(len(found.starts), band, np.uint64)
        for row in range(band * rows, (band + 1) * rows):
            key = mixed(key + np.uint64(1)) ^ minima(row)
        keys[place] = mixed(key) & ~np.uint64(0xFFFF)
        nexts[place] = minima((band + 1) * rows) >> np.uint32(16)
    return keys, nexts


def _permutations(seed: int, count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors, all odd, and offsets; the first of them do not depend on how many there are."""
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, (count, 2), dtype=np.uint32)
    return drawn[:, 0] | np.uint32(1), drawn[:, 1]
