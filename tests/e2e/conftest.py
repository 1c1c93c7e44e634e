"""The demo, run once by its own command for all tests that look at what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.demo_pool import DemoPool
from tests.e2e.runs import finish


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoPool:
    """A finished demo on 1,000 scenes beside planted trouble; its corpus is drawn anew."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        pool = DemoPool(folder / "pool")
        finish(pool.command, folder / "said")
    return pool
