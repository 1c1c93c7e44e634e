"""Connected components by rounds against one process, over graphs of all shapes and any number of buckets."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import pytest

from curate.dedupe.components import EDGES, both_ways, components
from curate.shuffle import Shuffle
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.dedupe.graphs import smallest


def found(one: np.ndarray, other: np.ndarray, buckets: int, knots: int) -> dict[int, int]:
    """Node → smallest of its component; `knots` is how many edges one task may untie at the end."""
    with tempfile.TemporaryDirectory() as folder:
        work = Shuffle(Pool.create(f"{folder}/pool"), "test", "test", buckets, Crew(inline, 1))
        work.crew = Crew(inline, knots)
        work.put("edges", EDGES, pa.table(both_ways(one, other), EDGES.schema))
        table = work.read(components(work, "edges"))
    return dict(zip(table["node"].to_pylist(), table["other"].to_pylist(), strict=True))


def shapes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    nodes = int(random.integers(2, 400))
    pairs = random.integers(0, nodes, (2, int(random.integers(1, 2 * nodes))))
    if seed % 3 == 0:
        pairs = np.array([np.arange(nodes - 1), np.arange(1, nodes)])  # a chain
    if seed % 3 == 1:
        pairs = np.concatenate([pairs, [np.zeros(nodes - 1, np.int64), np.arange(1, nodes)]], axis=1)
    names = random.permutation(nodes) + int(random.integers(0, 2**62))
    apart = pairs[0] != pairs[1]
    return names[pairs[0][apart]], names[pairs[1][apart]]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("knots", [0, 20, 10_000])
def test_components_are_those_of_one_process(seed: int, knots: int) -> None:
    one, other = shapes(seed)
    assert found(one, other, 1, knots) == dict(zip(*(side.tolist() for side in smallest(one, other)), strict=True))


def test_many_buckets_find_the_same() -> None:
    one, other = shapes(3)
    assert found(one, other, 3, 30) == found(one, other, 1, 10_000)


def test_no_edges_are_no_components() -> None:
    none = np.zeros(0, np.int64)
    assert found(none, none, 1, 10) == {}
