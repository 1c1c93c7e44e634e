"""A further list is fetched for what the pool lacks: the server's log says so, request by request."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.catalog.verify import verify
from curate.engines.base import EngineSettings
from curate.errors import IdentityError
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.plan import InputSettings, add, prefilter
from curate.run import run_phase
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.fetch.conftest import FaultServer, quick, serving
from tests.fetch.phases import Troubled
from tests.plan import lists

ENGINE = EngineSettings(workers=1, wave_parts=2)
FIRST = ["/image/1", "/image/2", "/image/3", "/image/4", "/opt-out", "/status/404", "/status/503", "/png"]


def listed(folder: Path, name: str, server: FaultServer, paths: list[str], caption: str) -> str:
    rows = [{"url": server.url(path), "caption": f"{caption} {path}"} for path in paths]
    return lists.write(folder / name, lists.encoded(rows, "parquet"))


def remember(pool: Pool, **prefilter_said: str) -> None:
    settings = {"fetch": quick(attempts=1).model_dump(mode="json"), "engine": ENGINE.model_dump(mode="json"), "prefilter": prefilter_said}
    pool.write_document("settings", {"recipe": "ingest", "settings": settings})


def work(pool: Pool, phase: Any) -> Any:
    with claim(pool, {}) as run:
        return run_phase(pool, run, phase, ENGINE)


def asked(server: FaultServer) -> list[str]:
    return sorted(path for _, _, path in server.log)


def by_place(pool: Pool) -> dict[str, dict[str, Any]]:
    """What became of each row that is no duplicate, by caption; rows and records of all parts stand in one order."""
    rows, fetched = pool.snapshot("rows").read().to_pylist(), pool.snapshot("fetched").read().to_pylist()
    return {row["caption"]: {**row, **record} for row, record in zip(rows, fetched, strict=True) if record["reason"] != "duplicate_row"}


@pytest.fixture(scope="module")
def running(_loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    """One server for all tests here, so that pools can be copied."""
    yield from serving(_loop)


@pytest.fixture
def server(running: FaultServer) -> FaultServer:
    running.log.clear()
    return running


@pytest.fixture(scope="module")
def first(running: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A fetched pool in parts of three rows."""
    folder = tmp_path_factory.mktemp("first")
    made, _ = lists.planned(folder / "pool", listed(folder, "first.parquet", running, FIRST, "first"), rows_per_part=3)
    remember(made)
    work(made, FetchPhase(quick(attempts=1)))
    return made


@pytest.fixture
def pool(first: Pool, server: FaultServer, tmp_path: Path) -> Pool:
    """A copy of it; the server's log is empty."""
    return Pool.open(shutil.copytree(first.path, tmp_path / "pool"))


def test_only_what_the_pool_lacks_is_requested(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    before = {name: pool.snapshot(name).files for name in ("rows", "fetched", "telemetry_fetch")}
    known = [{"url": server.url(path), "caption": f"first {path}"} for path in FIRST]
    other = [{"url": server.url(path), "caption": f"second {path}"} for path in [*FIRST, "/image/9"]]
    path = lists.write(tmp_path / "second.parquet", lists.encoded([*known, *other], "parquet"))
    opened = curate.open(str(pool.path))
    report = opened.add(path)
    assert asked(server) == ["/image/9", "/status/503"], "the new image, and the one failure that another try may mend"
    assert (report.rows.reasons["duplicate_row"], report.rows.shared) == (len(FIRST), len(FIRST))
    assert (report.fetch.counters["requests"], report.fetch.counters["urls"]) == (2, 2)
    for name, files in before.items():
        assert set(files) <= set(pool.snapshot(name).files), "parts that were there stay as they are"
    found = by_place(pool)
    for one in ("/image/1", "/png", "/opt-out", "/status/404"):
        first, second = found[f"first {one}"], found[f"second {one}"]
        assert second["part"] > first["part"]
        for column in ("reason", "tar_file", "tar_offset", "tar_size", "sha256", "signal", "http_status"):
            assert second[column] == first[column]
    assert found["second /image/9"]["tar_file"].startswith(f"tars/{found['second /image/9']['part']:05d}-")
    assert verify(pool).ok
    server.log.clear()
    again = opened.add(path)
    assert server.log == [] and not again.rows.is_new and again.fetch.parts == 0


def test_shared_images_are_read_where_they_lie(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    opened = curate.open(str(pool.path))
    opened.add(listed(tmp_path, "second.parquet", server, ["/image/1", "/image/2"], "second"))
    assert server.log == []
    (sample,) = [image for image, caption, _ in opened.dataset("caption = 'second /image/1'").epoch(0)]
    assert hashlib.sha256(sample).hexdigest() == by_place(pool)["first /image/1"]["image_sha256"]
    report = work(pool, ScorePhase(ScoreSettings(clip=None)))
    assert report.reasons["ok"] == sum(record["reason"] is None for record in by_place(pool).values())
    assert [event.phase for event in opened.history(server.url("/image/1"))].count("plan") == 2


def test_a_list_that_was_added_before_the_first_was_fetched_takes_its_images_all_the_same(server: FaultServer, tmp_path: Path) -> None:
    """Lists are worked on in their order, passes for busy domains included."""
    pool, _ = lists.planned(tmp_path / "pool", listed(tmp_path, "first.parquet", server, FIRST, "first"), rows_per_part=3)
    remember(pool)
    with claim(pool, {}) as run:
        add(pool, run, InputSettings(path=listed(tmp_path, "second.parquet", server, FIRST[:4], "second")))
    work(pool, Troubled(quick(attempts=1, patience_seconds=20)))
    assert asked(server) == sorted(FIRST)
    assert verify(pool).ok


def test_a_second_addition_takes_images_of_the_first(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    opened = curate.open(str(pool.path))
    opened.add(listed(tmp_path, "second.parquet", server, ["/image/1", "/image/7"], "second"))
    report = opened.add(listed(tmp_path, "third.parquet", server, ["/image/1", "/image/7", "/gif"], "third"))
    assert asked(server) == ["/gif", "/image/7"]
    assert report.rows.shared == 2
    found = by_place(pool)
    assert found["third /image/7"]["tar_file"] == found["second /image/7"]["tar_file"]
    assert verify(pool).ok


def test_what_the_prefilter_refused_in_an_earlier_list_may_be_asked_for_in_a_later_one(
    pool: Pool, server: FaultServer, tmp_path: Path
) -> None:
    where = "caption != 'first /image/1'"
    remember(pool, where=where)
    with claim(pool, {}) as run:
        prefilter(pool, run, where)
    work(pool, FetchPhase(quick(attempts=1)))
    server.log.clear()
    report = curate.open(str(pool.path)).add(listed(tmp_path, "second.parquet", server, ["/image/1", "/image/2"], "second"))
    assert asked(server) == ["/image/1"]
    assert report.fetch.counters["urls"] == 1
    assert {file.part for file in pool.snapshot("decisions_prefilter").files} == {file.part for file in pool.snapshot("rows").files}
    assert verify(pool).ok


def test_a_retry_asks_once_for_a_url_that_two_lists_share(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    """The first list is asked, the second takes over what it got."""
    curate.open(str(pool.path)).add(listed(tmp_path, "second.parquet", server, ["/status/404", "/opt-out"], "second"))
    assert server.log == []
    curate.open(str(pool.path)).retry("http_not_found")
    assert asked(server) == ["/status/404"]


def test_fetch_settings_are_the_pools_and_can_be_changed(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    opened = curate.open(str(pool.path))
    opened.add(listed(tmp_path, "second.parquet", server, ["/image/7"], "second"), fetch={"contact": "me@example.org"})
    assert "me@example.org" in server.headers["/image/7"]
    with pytest.raises(IdentityError, match="other fetch settings"):
        opened.add(listed(tmp_path, "third.parquet", server, ["/image/8"], "third"), fetch={"max_bytes": 99})
