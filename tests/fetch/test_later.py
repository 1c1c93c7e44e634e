"""Rows of finished parts that are asked again: later passes, retry. Whatever the way, the pool is the same in the end."""

from __future__ import annotations

import asyncio
import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.catalog.digest import digest
from curate.catalog.verify import verify
from curate.engines.base import EngineSettings
from curate.errors import UsageError
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.run import PhaseReport, run_phase
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.fetch.conftest import FaultServer, quick, serving
from tests.fetch.phases import Troubled, turn
from tests.plan import lists

ENGINE = EngineSettings(workers=1, wave_parts=2)
PATHS = [*(f"/image/{number}" for number in range(20)), "/status/404", "/opt-out", "/opt-out/2", "/png", "/gif"]
LOST = ("/image/0", "/image/7", "/opt-out/2", "/png")


@pytest.fixture(scope="module")
def running(_loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    """One server for all tests here, so that pools can be copied."""
    yield from serving(_loop)


@pytest.fixture
def server(running: FaultServer) -> FaultServer:
    running.log.clear()
    return running


def planned(folder: Path, server: FaultServer, paths: list[str] = PATHS) -> Pool:
    """A pool whose rows are the paths, the first of them with two captions, in parts of about three rows."""
    rows = [{"url": server.url(path), "caption": f"about {path}"} for path in paths]
    rows.append({"url": server.url(paths[0]), "caption": "another"})
    pool, _ = lists.planned(folder, lists.write(folder.parent / "list.parquet", lists.encoded(rows, "parquet")), rows_per_part=3)
    settings = {"fetch": quick(attempts=1).model_dump(mode="json"), "engine": ENGINE.model_dump(mode="json")}
    pool.write_document("settings", {"recipe": "ingest", "settings": settings})
    return pool


def work(pool: Pool, phase: Any) -> PhaseReport:
    with claim(pool, {}) as run:
        return run_phase(pool, run, phase, ENGINE)


def table(pool: Pool, name: str = "fetched") -> list[dict[str, Any]]:
    """All rows, without what they were computed from."""
    return pool.snapshot(name).read().drop_columns(["basis"]).to_pylist()


def files(pool: Pool, name: str = "fetched") -> dict[int, str]:
    return {file.part: file.path for file in pool.snapshot(name).files}


def asked(server: FaultServer) -> list[str]:
    return sorted(path for _, _, path in server.log)


@pytest.fixture(scope="module")
def plain(running: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """The pool of a run to which nothing happened; to be read only."""
    pool = planned(tmp_path_factory.mktemp("plain") / "pool", running)
    work(pool, FetchPhase(quick()))
    return pool


# -- later passes


def test_a_pool_with_later_passes_equals_one_without(plain: Pool, server: FaultServer, tmp_path: Path) -> None:
    passes = planned(tmp_path / "passes", server)
    report = work(passes, Troubled(quick(patience_seconds=10)))
    assert report.passes == 1 + max(map(turn, PATHS)) == 4
    assert asked(server) == sorted(PATHS), "each URL is asked once, in the pass in which its turn comes"
    assert (report.parts, report.skipped, report.reasons["ok"], report.reasons["opt_out"]) == (len(files(plain)), 0, 23, 2)
    assert digest(passes) == digest(plain)
    assert verify(passes).ok
    assert {line["attempts"] for line in table(passes, "telemetry_fetch")} == {0, 1}, "the second caption made no request"
    assert sum(line["attempts"] for line in table(passes, "telemetry_fetch")) == len(PATHS)
    assert work(passes, Troubled(quick(patience_seconds=10))).parts == 0


def test_a_run_that_was_stopped_between_passes_goes_on_with_those_parts_alone(plain: Pool, server: FaultServer, tmp_path: Path) -> None:
    pool = planned(tmp_path / "pool", server)
    work(pool, Troubled(quick(), again=(), lost=LOST))  # as a run leaves the pool that is killed after its first pass
    before, open_parts = files(pool), {line["part"] for line in table(pool) if line["reason"] == "deferred_politeness"}
    assert 0 < len(open_parts) < len(before)
    server.log.clear()
    report = work(pool, FetchPhase(quick()))
    assert (report.parts, report.skipped) == (len(open_parts), len(before) - len(open_parts))
    assert asked(server) == sorted(LOST)
    assert {part for part, file in files(pool).items() if file != before[part]} == open_parts
    assert digest(pool) == digest(plain)


# -- retry


@pytest.fixture(scope="module")
def outage(running: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool that was fetched while the resolver was silent about some of the URLs."""
    pool = planned(tmp_path_factory.mktemp("outage") / "pool", running)
    work(pool, Troubled(quick(attempts=1), reason="dns_timeout", lost=LOST))
    assert {line["reason"] for line in table(pool)} > {"dns_timeout", None}
    return pool


@pytest.fixture
def broken(outage: Pool, server: FaultServer, tmp_path: Path) -> Pool:
    """A copy of it."""
    return Pool.open(shutil.copytree(outage.path, tmp_path / "broken"))


def test_a_retry_recovers_what_an_outage_took_and_touches_nothing_else(broken: Pool, plain: Pool, server: FaultServer) -> None:
    before, telemetry, names = table(broken), table(broken, "telemetry_fetch"), files(broken)
    report = curate.open(str(broken.path)).retry("dns_timeout")
    assert asked(server) == sorted(LOST), "the failed URLs, once each, and nothing else"
    assert (report.before["dns_timeout"], report.after["dns_timeout"]) == (sum(line["reason"] == "dns_timeout" for line in before), 0)
    assert report.fetch.counters["urls"] == len(LOST)
    for old, new, asked_before, asked_now in zip(before, table(broken), telemetry, table(broken, "telemetry_fetch"), strict=True):
        if old["reason"] != "dns_timeout":
            assert new == old and asked_now == asked_before
    without = {line["part"] for line in before} - {line["part"] for line in before if line["reason"] == "dns_timeout"}
    assert {part for part, file in files(broken).items() if file == names[part]} == without
    assert digest(broken) == digest(plain)
    assert verify(broken).ok
    tars = {(line["part"], line["tar_file"]) for line in table(broken) if line["tar_file"]}
    assert len(tars) > len({part for part, _ in tars}), "their bytes are in a second tar of the part"


def test_only_the_parts_that_changed_are_scored_again(broken: Pool, server: FaultServer) -> None:
    phase = ScorePhase(ScoreSettings(clip=None))
    work(broken, phase)
    names, scored = files(broken), files(broken, "scores_base")
    curate.open(str(broken.path)).retry("dns_timeout")
    changed = [part for part, file in files(broken).items() if file != names[part]]
    report = work(broken, phase)
    assert (report.parts, report.skipped) == (len(changed), len(names) - len(changed))
    assert 0 < len(changed) < len(names)
    assert {part for part, file in files(broken, "scores_base").items() if file != scored[part]} == set(changed)


def test_what_was_refused_on_purpose_is_never_asked_again(broken: Pool, server: FaultServer) -> None:
    pool = curate.open(str(broken.path))
    pool.retry()
    pool.retry(["http_not_found", "decode_failed"])
    assert not [path for path in asked(server) if path == "/opt-out"]
    assert [server.count(path) for path in ("/opt-out/2", "/status/404", "/image/1", *LOST)] == [1, 1, 0, 1, 1, 1, 1]
    for reason, hint in (
        ("opt_out", "asks not to be used"),
        ("duplicate_row", "not asked again"),
        ("withdrawn", "not asked again"),
        ("bad_url", "no address"),
    ):
        with pytest.raises(UsageError, match=hint):
            pool.retry(reason)
    with pytest.raises(UsageError, match="did you mean 'dns_timeout'"):
        pool.retry("dns_timout")


def test_rows_that_were_asked_lately_are_spared(broken: Pool, server: FaultServer) -> None:
    pool = curate.open(str(broken.path))
    assert pool.retry("dns_timeout", older_than="1h").fetch.parts == 0 and server.log == []
    assert pool.retry("dns_timeout", older_than=datetime.timedelta(microseconds=1)).after["dns_timeout"] == 0
    with pytest.raises(UsageError, match="7d"):
        pool.retry(older_than="soon")


def test_a_retry_that_did_not_come_to_its_end_asks_nothing_twice(server: FaultServer, tmp_path: Path) -> None:
    pool = planned(tmp_path / "pool", server, ["/image/1", "/status/503", "/status/500", "/image/2", "/recovers/1/502/9"])
    work(pool, FetchPhase(quick(attempts=1)))
    assert len(server.log) == 5
    opened = curate.open(str(pool.path))
    assert opened.retry().after["http_server_error"] == 2
    assert sorted(path for _, _, path in server.log[5:]) == ["/recovers/1/502/9", "/status/500", "/status/503"]
    pool.write_document("retry", {**(pool.read_document("retry") or {}), "finished": False})
    assert opened.retry().fetch.parts == 0 and len(server.log) == 8, "the same command goes on: all was asked"
    assert opened.retry().fetch.parts > 0 and len(server.log) == 10, "given once more, it is a new one"


def test_telemetry_of_a_retry_that_was_killed_before_its_rows_were_committed_is_not_believed(broken: Pool, server: FaultServer) -> None:
    """The kill comes between two commits: telemetry says that the rows were asked, table `fetched` is the old one."""
    before = {name: broken.snapshot(name) for name in ("fetched", "telemetry_fetch")}
    opened = curate.open(str(broken.path))
    opened.retry("dns_timeout")
    with claim(broken, {"fetched": before["fetched"].schema}) as run:
        run.replace_all("fetched", before["fetched"].files)
        epoch = run.epoch("fetched")
    broken.write_document("retry", {**(broken.read_document("retry") or {}), "finished": False, "epoch": epoch})
    assert opened.retry("dns_timeout").after["dns_timeout"] == 0


def test_telemetry_of_an_earlier_release_is_believed(broken: Pool, server: FaultServer) -> None:
    """It carried the basis of the part."""
    lines = broken.snapshot("telemetry_fetch")
    with claim(broken, {"telemetry_fetch": lines.schema}) as run:
        bases = {file.part: file.basis for file in broken.snapshot("fetched").files}
        old = [broken.write_part("telemetry_fetch", part, lines.read(parts=[part]), basis) for part, basis in bases.items()]
        run.replace_all("telemetry_fetch", old)
    opened = curate.open(str(broken.path))
    assert opened.retry("dns_timeout", older_than="1h").fetch.parts == 0
    assert opened.retry("dns_timeout").after["dns_timeout"] == 0
