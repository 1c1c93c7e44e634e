"""Pools for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.store import Pool
from tests.catalog import pools


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A fresh pool of twelve rows, to be read or broken."""
    return pools.build(tmp_path / "pool")


@pytest.fixture(scope="session")
def read_only_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """The same pool for tests that only read."""
    return pools.build(tmp_path_factory.mktemp("catalog") / "pool")
