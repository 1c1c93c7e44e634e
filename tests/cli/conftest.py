"""A small pool for the commands to work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog import pools


@pytest.fixture(scope="session")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of twelve rows for commands that only read."""
    return pools.build(tmp_path_factory.mktemp("cli") / "pool").path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """The same, to be changed."""
    return pools.build(tmp_path / "pool").path
