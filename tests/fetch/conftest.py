"""The fault server on loopback, and the stage run over its URLs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage
from tests.web.answers import ANSWERS
from tests.web.bodies import picture
from tests.web.kinds import fixed
from tests.web.server import FaultServer, background_loop, response, running

if TYPE_CHECKING:
    from tests.fetch.hosts import Hosts

__all__ = ["ANSWERS", "FaultServer", "fetch", "fixed", "picture", "quick", "response"]


@pytest.fixture(scope="session")
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    with background_loop() as loop:
        yield loop


@pytest.fixture
def server(_loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    yield from serving(_loop)


def serving(_loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    """A server while the iterator is open."""
    with running(FaultServer(), _loop) as faults:
        yield faults


def quick(**changes: object) -> FetchSettings:
    """Settings for loopback: no pause between starts, short deadlines, no files that hosts have about themselves."""
    base: dict[str, object] = {
        "allow_addresses": ("127.0.0.0/8",), "host_interval_seconds": 0.0, "host_in_flight": 64, "backoff_seconds": 0.01,
        "backoff_cap_seconds": 0.05, "total_seconds": 5.0, "max_bytes": 1 << 20,
        "robots": False, "tdm_file": False,
    }  # fmt: skip
    return FetchSettings.model_validate(base | changes)


def fetch(urls: list[str], settings: FetchSettings, skips: list[str | None] | None = None, batch: int = 8) -> list[dict[str, Any]]:
    """Runs the stage over the URLs; one dict of added columns per URL."""
    rows = pa.table({"url": pa.array(urls, pa.string()), "skip": pa.array(skips or [None] * len(urls), pa.string())})
    with FetchStage(settings).open() as compute:
        batches = list(compute(iter(rows.combine_chunks().to_batches(max_chunksize=batch))))
    return [row for done in batches for row in done.to_pylist()]


@pytest.fixture
def hosts(_loop: asyncio.AbstractEventLoop) -> Iterator[Hosts]:
    from tests.fetch.hosts import serving

    with serving(_loop) as found:
        yield found
