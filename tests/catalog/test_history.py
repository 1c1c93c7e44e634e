"""One URL's story, and where a pool stands."""

from __future__ import annotations

import json

import pytest

from curate import schema as schemas
from curate.catalog.history import history, text
from curate.catalog.status import human_bytes, status
from curate.errors import UsageError
from curate.lease import claim
from curate.store import Pool
from tests.catalog import pools


def told(pool: Pool, what: str) -> dict[str, str]:
    return {event.phase: event.text for event in history(pool, what)}


def test_a_dropped_row_tells_every_step(read_only_pool: Pool) -> None:
    story = told(read_only_pool, "http://a.example/0/1.jpg")
    assert list(story) == ["plan", "prefilter", "fetch", "score", "dedupe", "filter"]
    assert story["plan"].startswith("list.csv, row 1: http://a.example/0/1.jpg")
    assert "status 200, 48×48 jpeg" in story["fetch"] and "tars/00000-" in story["fetch"]
    assert "clip_tiny 0.31" in story["score"]
    assert "one of 2 (exact) in group g: http://a.example/0/1.jpg, http://a.example/0/2.jpg" in story["dedupe"]
    assert story["filter"] == "usual: dropped; fails duplicate"


def test_ids_and_fragments_find_the_same_row(read_only_pool: Pool) -> None:
    by_url = history(read_only_pool, "http://a.example/0/0.jpg#top")
    assert history(read_only_pool, by_url[0].sample_id) == by_url
    assert history(read_only_pool, str(by_url[0].facts["url_id"])) == by_url
    assert told(read_only_pool, by_url[0].sample_id)["filter"] == "usual: kept"


def test_a_failed_row_says_why_in_words(read_only_pool: Pool) -> None:
    assert "http_not_found: status 404 or 410" in told(read_only_pool, "http://a.example/0/3.jpg")["fetch"]
    assert "duplicate_row: same URL and caption" in told(read_only_pool, "http://a.example/1/1.jpg")["plan"]


def test_nothing_found_is_said_in_one_line(read_only_pool: Pool) -> None:
    with pytest.raises(UsageError, match="no row of this pool"):
        history(read_only_pool, "http://nowhere.example/")


def test_story_as_text_and_json(read_only_pool: Pool) -> None:
    events = history(read_only_pool, "http://a.example/0/0.jpg")
    assert text(events).splitlines()[0] == events[0].sample_id
    assert json.loads(json.dumps([event.to_dict() for event in events], default=str))[0]["phase"] == "plan"


def test_status_counts_parts_rows_and_bytes(pool: Pool) -> None:
    with pools.claim(pool, {"fetched": schemas.table("fetched")}) as run:
        run.replace_all("fetched", pool.snapshot("fetched").files[:1])
    found = status(pool)
    tables = {table.table: (table.parts, table.parts_wanted, table.rows, table.writer) for table in found.tables}
    assert tables["rows"] == (2, 2, 12, None)
    assert tables["fetched"] == (1, 2, 6, None)
    assert sum(found.outcomes.values()) == found.rows == 12
    assert found.bytes_on_disk["tars"] == sum(path.stat().st_size for path in (pool.path / "tars").iterdir())
    assert "1 of 2 parts" in found.text()
    json.dumps(found.to_dict())


def test_status_names_who_is_writing(pool: Pool) -> None:
    with claim(pool, {"fetched": schemas.table("fetched")}):
        writers = {table.table: table.writer for table in status(pool).tables}
        assert writers["fetched"] is not None and writers["rows"] is None
        assert "← process" in status(pool).text()


def test_bytes_are_written_in_units_people_read() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 << 30, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB"]
