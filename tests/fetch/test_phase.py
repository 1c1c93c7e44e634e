"""A part is fetched once per URL, reproducibly, and brought up to date without asking again for what it has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import LocalFault
from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.media.tar import read
from curate.stage import PartReport, PartTask
from curate.store import Pool
from tests.fetch.conftest import FaultServer, quick

PATHS = ["/image/1", "/image/2", "/image/2", "/status/404", "/image/3", "/status/500", "/opt-out", "/image/4"]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


def rows_file(pool: Pool, server: FaultServer, reasons: dict[int, str] | None = None) -> str:
    urls = [server.url(path) for path in PATHS]
    table = pa.table(
        {
            "row": pa.array(range(len(urls)), pa.int32()),
            "sample_id": [hashlib.sha256(f"{index}".encode()).hexdigest()[:32] for index in range(len(urls))],
            "url_id": [hashlib.sha256(url.encode()).hexdigest()[:32] for url in urls],
            "url": urls,
            "caption": [f"caption {index}\x00\u00e9" if index else None for index in range(len(urls))],
            "reason": pa.array([(reasons or {}).get(index) for index in range(len(urls))], pa.string()),
        }
    )
    return _path(pool, "rows", pool.write_part("rows", 3, table, "r").path)


def prefilter_file(pool: Pool, refused: set[int]) -> str:
    keep = [index not in refused for index in range(len(PATHS))]
    table = pa.table(
        {
            "row": pa.array(range(len(PATHS)), pa.int32()),
            "keep": keep,
            "reason": pa.array([None if kept else "prefilter" for kept in keep], pa.string()),
        }
    )
    return _path(pool, "decisions_prefilter", pool.write_part("decisions_prefilter", 3, table, "p").path)


def _path(pool: Pool, table: str, name: str) -> str:
    return str(pool.table_folder(table) / name)


def run(pool: Pool, settings: FetchSettings, previous: str | None = None, **inputs: str) -> PartReport:
    with FetchPhase(settings).open() as fetch_part:
        return fetch_part(PartTask(str(pool.path), 3, inputs, "basis", previous))


def fetched(pool: Pool, report: PartReport) -> list[dict[str, object]]:
    return pq.read_table(_path(pool, "fetched", report.files[0].path)).to_pylist()


def test_a_part_asks_once_per_url_and_accounts_for_every_row(pool: Pool, server: FaultServer) -> None:
    report = run(pool, quick(attempts=2), rows=rows_file(pool, server, {7: "duplicate_row"}))
    records = fetched(pool, report)
    reasons = [None, None, None, "http_not_found", None, "http_server_error", "opt_out", "duplicate_row"]
    assert [record["reason"] for record in records] == reasons
    assert [server.count(path) for path in PATHS] == [1, 1, 1, 1, 1, 2, 1, 0]
    assert report.reasons == {"ok": 4, "http_not_found": 1, "http_server_error": 1, "opt_out": 1, "duplicate_row": 1}
    assert (report.counters["requests"], report.counters["urls"], report.counters["images"]) == (7, 6, 3)
    assert (records[1]["tar_offset"], records[1]["sha256"]) == (records[2]["tar_offset"], records[2]["sha256"])
    assert [file.table for file in report.files] == ["fetched", "telemetry_fetch"]


def test_the_tar_holds_image_and_caption_side_by_side_at_the_offsets_told(pool: Pool, server: FaultServer) -> None:
    records = fetched(pool, run(pool, quick(), rows=rows_file(pool, server)))
    (path,) = {record["tar_file"] for record in records if record["tar_file"]}
    names = [name for name, _ in read(pool.path / str(path))]
    ids = [hashlib.sha256(str(index).encode()).hexdigest()[:32] for index in (0, 1, 4, 7)]
    assert names == [f"{sample}.{end}" for sample in ids for end in ("jpg", "txt")]
    assert dict(read(pool.path / str(path)))[f"{ids[1]}.txt"] == "caption 1\u00e9".encode()
    data = (pool.path / str(path)).read_bytes()
    for record in records:
        if record["reason"] is None:
            start, size = int(str(record["tar_offset"])), int(str(record["tar_size"]))
            assert hashlib.sha256(data[start : start + size]).hexdigest() == record["image_sha256"]
    assert hashlib.sha256(data).hexdigest() in str(path)


def test_two_runs_give_the_same_files(pool: Pool, server: FaultServer, tmp_path: Path) -> None:
    other = Pool.create(tmp_path / "other")
    first = run(pool, quick(rows_under_way=3, batch_rows=2), rows=rows_file(pool, server))
    second = run(other, quick(in_flight=1), rows=rows_file(other, server))
    assert first.files[0] == second.files[0]
    assert fetched(pool, first)[0]["tar_file"] == fetched(other, second)[0]["tar_file"]
    assert FetchPhase(quick(parts_at_once=2)).identity() == FetchPhase(quick(in_flight=1)).identity()
    assert FetchPhase(quick()).identity() != FetchPhase(quick(max_bytes=99)).identity()


def test_a_looser_prefilter_asks_only_for_the_difference(pool: Pool, server: FaultServer) -> None:
    rows = rows_file(pool, server)
    first = run(pool, quick(attempts=1), rows=rows, decisions_prefilter=prefilter_file(pool, {1, 4}))
    before = fetched(pool, first)
    assert [record["reason"] for record in before][:5] == [None, "prefilter", None, "http_not_found", "prefilter"]
    assert server.count("/image/3") == 0
    server.log.clear()
    previous = _path(pool, "fetched", first.files[0].path)
    second = run(pool, quick(attempts=1), previous, rows=rows, decisions_prefilter=prefilter_file(pool, set()))
    after = fetched(pool, second)
    assert sorted(path for _, _, path in server.log) == ["/image/3", "/status/500"]  # what was refused, and what may be retried
    assert [after[index] for index in (0, 2, 3, 6, 7)] == [before[index] for index in (0, 2, 3, 6, 7)]
    assert (after[1]["tar_file"], after[1]["tar_offset"]) == (before[2]["tar_file"], before[2]["tar_offset"])
    assert after[4]["tar_file"] not in (None, before[0]["tar_file"])
    assert second.counters["rows_reused"] == 6


def test_a_tighter_prefilter_asks_for_nothing(pool: Pool, server: FaultServer) -> None:
    rows = rows_file(pool, server)
    first = run(pool, quick(attempts=1), rows=rows)
    server.log.clear()
    previous = _path(pool, "fetched", first.files[0].path)
    tight = prefilter_file(pool, {0, 5})
    after = fetched(pool, run(pool, quick(attempts=1), previous, rows=rows, decisions_prefilter=tight))
    assert server.log == []
    assert (after[0]["reason"], after[0]["tar_file"], after[1]["reason"]) == ("prefilter", None, None)


def test_a_part_without_images_has_no_tar(pool: Pool, server: FaultServer) -> None:
    tables = rows_file(pool, server, dict.fromkeys(range(len(PATHS)), "bad_url"))
    report = run(pool, quick(), rows=tables)
    assert report.reasons == {"bad_url": len(PATHS)} and server.log == []
    assert not (pool.path / "tars").exists()


def test_a_full_disk_stops_the_run_and_fails_no_row(pool: Pool, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_file(pool, server)
    monkeypatch.setattr(Pool, "temporary", lambda self, suffix: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # the device stays
    with pytest.raises(LocalFault, match="No space left"):
        run(pool, quick(), rows=rows)


def test_each_pass_takes_up_rows_that_were_deferred_until_none_is_left(pool: Pool, server: FaultServer) -> None:
    settings = quick(host_interval_seconds=0.1, patience_seconds=0.0)
    rows, previous, deferred, passes = rows_file(pool, server, {5: "bad_url"}), None, len(PATHS), 0  # 5 would fail in every pass
    while deferred:
        report = run(pool, settings, previous, rows=rows)
        assert report.reasons.get("deferred_politeness", 0) < deferred, "every pass gets on"
        previous, deferred, passes = _path(pool, "fetched", report.files[0].path), report.reasons.get("deferred_politeness", 0), passes + 1
        if passes == 1:
            lines = pq.read_table(_path(pool, "telemetry_fetch", report.files[1].path)).to_pylist()
            assert sum(line["attempts"] for line in lines) == len(server.log)
        assert passes <= len(PATHS)
    assert passes > 1 and [server.count(path) for path in PATHS if path != "/status/500"] == [1] * 7
