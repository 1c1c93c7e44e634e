"""MinHash signatures of shingle sets, in bands: sets that share much meet in some band, sets that share little seldom do.

Method: Broder: On the resemblance and containment of documents (SEQUENCES 1997); banding as in Leskovec, Rajaraman, Ullman:
Mining of Massive Datasets, section 3.4. A permutation of the 2³² shingle names is h → a·h + b modulo 2³² with an odd a,
over names that are well mixed before; the probability that two sets have the same smallest image is their Jaccard index J.
A band is `rows` such minima: two sets have an equal one with probability J^rows, and meet in one of `bands` with
1 − (1 − J^rows)^bands.

Most sets that meet by chance are told apart by a sketch, one bit of each minimum: two bits are equal with probability (1 + J) / 2
(Li, König: b-bit minwise hashing, WWW 2010).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.dedupe.shingles import Hashes, Shingles
from curate.shuffle import mixed

SKETCH_BITS = 128
SKETCH_LOSS = 0.002


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
    return next((one for one in offered if one.chance(threshold) * (1 - SKETCH_LOSS) >= recall), offered[-1])


def minima(found: Shingles, rows: range, seed: int) -> NDArray[np.uint32]:
    """The smallest image of each text's shingles under some of the permutations, shape (rows, texts)."""
    names = (found.hashes >> np.uint64(32)).astype(np.uint32)
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, (rows.stop, 2), dtype=np.uint32)  # the first do not depend on how many
    least, images = np.empty((len(rows), len(found.starts)), np.uint32), np.empty_like(names)
    for place, (factor, offset) in enumerate(drawn[rows.start :]):
        np.multiply(names, factor | np.uint32(1), out=images)
        images += offset
        np.minimum.reduceat(images, found.starts, out=least[place])
    return least


def band_keys(signature: NDArray[np.uint32], rows: int) -> tuple[Hashes, NDArray[np.uint16]]:
    """For each band of a signature and each text its key, shape (bands, texts); and the top of one more minimum.

    The signature has `rows` minima a band and one more. Equal keys: equal minima in the band, but for chance. The lower 16 bits
    of a key are 0: with the other number in their place keys sort so that those who agree in more than the band stand together.
    """
    bands = (len(signature) - 1) // rows
    keys = np.repeat(np.arange(bands, dtype=np.uint64)[:, None], signature.shape[1], axis=1)
    for row, factor in enumerate(mixed(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)):
        keys += signature[row : bands * rows : rows] * factor  # multilinear: Dietzfelbinger, STACS 1996
    return mixed(keys) & ~np.uint64(0xFFFF), (signature[rows::rows] >> np.uint32(16)).astype(np.uint16)


def sketches(signature: NDArray[np.uint32]) -> Hashes:
    """One bit of each of the first `SKETCH_BITS` minima, shape (texts, 2); 0 for those that there are not."""
    bits = (signature[:SKETCH_BITS] * np.uint32(0x9E3779B1) >> np.uint32(31)).astype(np.uint8)
    missing = np.zeros((SKETCH_BITS - len(bits), bits.shape[1]), np.uint8)
    return np.ascontiguousarray(np.packbits(np.concatenate([bits, missing]), axis=0).T).view(np.uint64)


def most_differing_bits(threshold: float, bits: int) -> int:
    """In how many of so many bits the sketches of two sets at the threshold differ at most, but for the share `SKETCH_LOSS` of them."""
    bits, differs = min(bits, SKETCH_BITS), (1 - threshold) / 2
    chances = (math.comb(bits, count) * differs**count * (1 - differs) ** (bits - count) for count in range(bits + 1))
    return next((count for count, sure in enumerate(itertools.accumulate(chances)) if sure >= 1 - SKETCH_LOSS), bits)
