"""One S3-speaking server for all tests of object stores; each test has a prefix of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate import bucket
from tests.s3.server import BUCKET, Proxy, environment, store


@pytest.fixture(scope="session")
def server() -> Iterator[Proxy]:
    with store() as proxy:
        yield proxy


@pytest.fixture
def s3(server: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server, found by this process and its children."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CURATE_SCRATCH", str(tmp_path / "scratch"))
    bucket._client.cache_clear()
    server.traffic()
    yield server
    bucket._client.cache_clear()


@pytest.fixture
def prefix(s3: Proxy) -> str:
    """An address that nobody else uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
