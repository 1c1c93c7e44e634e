"""The table of planted trouble against the real fetcher: each row ends with its reason, after its number of requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from curate.demo.server import Server
from curate.demo.settings import ServerSettings
from curate.demo.trouble import OK, PLANTED, Trouble, plant
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage
from curate.stage import apply

ASKED = [trouble for trouble in PLANTED if trouble.same_url_as is None]
"""Rows that share another row's URL never reach the fetcher as requests of their own."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Counter[str]]:
    """Reason by kind, and requests by path."""
    folder: Path = tmp_path_factory.mktemp("planted")
    settings = FetchSettings(
        allow_addresses=("127.0.0.0/8",), total_seconds=8, floor_seconds=4, backoff_seconds=0.05, host_interval_seconds=0.01
    )
    with Server(plant(folder / "corpus"), folder / "log", ServerSettings(hosts=60)) as server:
        urls = pa.array([server.url(trouble.address) for trouble in ASKED])
        batch = pa.record_batch({"url": urls, "skip": pa.nulls(len(ASKED), pa.string())})
        (answered,) = apply([FetchStage(settings)], [batch])
        reasons = [reason or OK for reason in answered.column("reason").to_pylist()]
        return dict(zip([t.kind for t in ASKED], reasons, strict=True)), Counter(request.path for request in server.requests())


@pytest.mark.parametrize("trouble", ASKED, ids=lambda trouble: trouble.kind)
def test_reason_and_requests(outcome: tuple[dict[str, str], Counter[str]], trouble: Trouble) -> None:
    reasons, requests = outcome
    assert reasons[trouble.kind] in trouble.expected_reasons
    if trouble.expected_requests is not None:
        assert requests[trouble.address] == trouble.expected_requests
