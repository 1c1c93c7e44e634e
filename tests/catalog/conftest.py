"""Pools for the tests of this folder: built once, copied for those tests that break them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curate.store import Pool
from tests.catalog import pools


@pytest.fixture(scope="session")
def read_only_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Twelve rows, all phases done, for tests that only read."""
    return pools.build(tmp_path_factory.mktemp("catalog") / "pool")


@pytest.fixture(scope="session")
def read_only_packed(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """The same, its kept rows packed."""
    return pools.packed(tmp_path_factory.mktemp("packed") / "pool")


@pytest.fixture
def pool(read_only_pool: Pool, tmp_path: Path) -> Pool:
    """A copy to be broken."""
    return Pool.open(shutil.copytree(read_only_pool.path, tmp_path / "pool"))


@pytest.fixture
def packed(read_only_packed: Pool, tmp_path: Path) -> Pool:
    """A copy with shards to be broken."""
    return Pool.open(shutil.copytree(read_only_packed.path, tmp_path / "pool"))
