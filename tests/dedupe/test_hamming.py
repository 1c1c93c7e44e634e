"""The pair search against brute force: every pair within the radius, none beyond, each once."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from curate.dedupe import exchanges as ex
from curate.dedupe import near
from curate.dedupe.hamming import collisions
from curate.shuffle import Shuffle
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline


def planted(count: int, seed: int, flips: int) -> NDArray[np.uint64]:
    """Random hashes, half of them copies of others with up to `flips` bits turned; distinct."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**64, count // 2, dtype=np.uint64)
    copies = base.copy()
    for _ in range(flips):
        copies ^= np.uint64(1) << random.integers(0, 64, len(copies), dtype=np.uint64)
    return np.unique(np.concatenate([base, copies]))


def brute_force(hashes: NDArray[np.uint64], radius: int) -> set[tuple[int, int, int]]:
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    first, second = np.nonzero(np.triu(distance <= radius, 1))
    return {(int(i), int(j), int(distance[i, j])) for i, j in zip(first, second, strict=True)}


def found(hashes: NDArray[np.uint64], radius: int, buckets: int = 1) -> list[tuple[int, int, int]]:
    with tempfile.TemporaryDirectory() as folder:
        shuffle = Shuffle(Pool.create(f"{folder}/pool"), "test", "test", 3, Crew(inline, -(-3 // buckets)))
        grids = ex.grid_column(np.zeros((len(hashes), 192), np.uint8))
        shuffle.put("nodes", ex.NODES, pa.table({"hash": hashes, "grid": grids, "place": np.arange(len(hashes))}, ex.NODES.schema))
        crowding = {f"collisions {agreeing}": pairs for agreeing, pairs in collisions(hashes, radius).items()}
        near.near_hashes(shuffle, radius, {"hashes": len(hashes), **crowding})
        pairs = shuffle.read("near")
    places = [np.searchsorted(hashes, pairs.column(name).to_numpy()) for name in ("hash", "near")]
    distance = np.bitwise_count(pairs.column("hash").to_numpy() ^ pairs.column("near").to_numpy())
    return sorted(zip(np.minimum(*places).tolist(), np.maximum(*places).tolist(), distance.tolist(), strict=True))


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 7, 10])
@pytest.mark.parametrize("seed", [1, 2])
def test_finds_every_pair_once(radius: int, seed: int) -> None:
    hashes = planted(3000, seed, flips=max(radius, 1))
    pairs = found(hashes, radius)
    assert len(set(pairs)) == len(pairs)
    expected = brute_force(hashes, radius)
    assert set(pairs) == expected
    assert radius == 0 or len(expected) > 500


@pytest.mark.parametrize("agreeing", [1, 2, 3, 4])
def test_every_number_of_agreeing_blocks_is_complete(agreeing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "agreeing_blocks", lambda hashes, crowding, radius: agreeing)
    hashes = planted(1500, 3, flips=4)
    assert set(found(hashes, 4, buckets=1 + agreeing % 3)) == brute_force(hashes, 4)


def test_hashes_crowded_in_few_bits() -> None:
    crowded = np.unique(np.random.default_rng(0).integers(0, 2**14, 2000, dtype=np.uint64) << np.uint64(30))
    assert set(found(crowded, 3)) == brute_force(crowded, 3)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count: int) -> None:
    assert found(np.arange(count, dtype=np.uint64), 4) == []
