"""The fetcher and the planner obey the suppression list: barred rows are not requested, barred bytes are not stored."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import schema as schemas
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.plan.identity import sample_id, url_id
from curate.plan.plan import plan
from curate.plan.settings import InputSettings
from curate.stage import PartTask
from curate.store import Pool
from curate.suppress import read_suppression
from tests.fetch.conftest import FaultServer, _loop, quick, server  # noqa: F401  # fixtures


def suppress(pool: Pool, number: int, **line: str) -> None:
    schema = pa.schema([field for field in schemas.table("suppressed") if field.name not in ("part", "basis")])
    table = pa.Table.from_pylist([{"row": 0, **line}], schema=schema)
    with claim(pool, {"suppressed": schemas.table("suppressed")}) as run:
        run.commit("suppressed", [pool.write_part("suppressed", number, table, "by hand")])


def fetch(pool: Pool, urls: list[str], previous: str | None = None) -> tuple[list[dict], str]:
    """Fetches rows as they would stand in a pool that does not know yet that they are barred."""
    rows = {"row": pa.array(range(len(urls)), pa.int32()), "url": urls, "caption": [f"caption {n}" for n in range(len(urls))]}
    ids = {"url_id": [url_id(url) for url in urls], "sample_id": [sample_id(url, f"caption {n}") for n, url in enumerate(urls)]}
    table = pa.table({**rows, **ids, "reason": pa.nulls(len(urls), pa.string())})
    path = pool.table_folder("rows") / pool.write_part("rows", 0, table, "r").path
    with FetchPhase(quick()).open() as fetch_part:
        file = fetch_part(PartTask(str(pool.path), 0, {"rows": str(path)}, "basis", previous)).files[0]
    place = pool.table_folder("fetched") / file.path
    return pq.read_table(place, partitioning=None).to_pylist(), str(place)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


def test_a_barred_url_is_never_requested(pool: Pool, server: FaultServer) -> None:  # noqa: F811
    urls = [server.url("/image/1"), server.url("/image/2")]
    suppress(pool, 1, url_id=url_id(urls[0]))
    records, _ = fetch(pool, urls)
    assert [record["reason"] for record in records] == ["withdrawn", None]
    assert [server.count("/image/1"), server.count("/image/2")] == [0, 1]


def test_a_barred_body_under_a_new_url_is_dropped_before_it_is_stored(pool: Pool, server: FaultServer) -> None:  # noqa: F811
    urls = [server.url("/image/1"), server.url("/image/1.jpg"), server.url("/image/2")]
    (first, *_), _ = fetch(Pool.create(pool.path.parent / "other"), urls[:1])
    for name in ("sha256", "image_sha256"):
        barred = Pool.create(pool.path.parent / name)
        suppress(barred, 1, **{name: first[name]})
        records, _ = fetch(barred, urls)
        assert [record["reason"] for record in records] == ["withdrawn", "withdrawn", None]
        assert {name for name, value in records[1].items() if value is not None} == {"part", "row", "basis", "reason", "http_status"}
        image = (pool.path.parent / "other" / first["tar_file"]).read_bytes()[first["tar_offset"] :][: first["tar_size"]]
        assert not [path for path in barred.path.rglob("*") if path.is_file() and image in path.read_bytes()]


def test_a_later_pass_does_not_ask_again_for_what_was_barred(pool: Pool, server: FaultServer) -> None:  # noqa: F811
    urls = [server.url("/image/1"), server.url("/image/2")]
    (first, *_), _ = fetch(Pool.create(pool.path.parent / "other"), urls[:1])
    suppress(pool, 1, sha256=first["sha256"])
    _, previous = fetch(pool, urls)
    before = len(server.log)
    records, _ = fetch(pool, urls, previous)
    assert [record["reason"] for record in records] == ["withdrawn", None] and len(server.log) == before


def test_a_list_that_is_planned_into_the_pool_marks_barred_rows(pool: Pool, tmp_path: Path) -> None:
    barred, free = "http://a.example/1.jpg", "http://a.example/2.jpg"
    pq.write_table(pa.table({"url": [barred, free], "caption": ["secret", "open"], "alt": ["secret too", "x"]}), tmp_path / "list.parquet")
    suppress(pool, 1, url_id=url_id(barred))
    with claim(pool, {}) as run:
        report = plan(pool, run, InputSettings(path=str(tmp_path / "list.parquet")))
    rows = {line["url"]: line for line in pool.snapshot("rows").read().to_pylist()}
    assert report.reasons == {"withdrawn": 1, "ok": 1}
    assert (rows[barred]["reason"], rows[barred]["caption"], rows[barred]["source.alt"]) == ("withdrawn", None, None)
    assert (rows[free]["reason"], rows[free]["caption"]) == (None, "open")


def test_an_empty_pool_bars_nothing(pool: Pool) -> None:
    assert not read_suppression(pool) and not read_suppression(pool).holds(None, None)
