"""Which rows a takedown takes, and what becomes of those that share an image, a URL or bytes with them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate import schema as schemas
from curate.catalog.views import connect
from curate.errors import Fenced, InputError, PoolBusy, RemovalUnfinished, UsageError, Withdrawn
from curate.lease import claim
from curate.media.tar import read as read_tar
from curate.plan.identity import url_id
from curate.removal import takedown as steps
from curate.removal.targets import takedown_targets
from curate.store import Pool
from curate.suppress import read_suppression
from tests.removal import handmade
from tests.removal.handmade import PARTS, Row, address, image


@pytest.fixture
def pool(handmade_pool: Path, tmp_path: Path) -> Path:
    """A copy to take rows out of."""
    return Path(shutil.copytree(handmade_pool, tmp_path / "pool"))


def row(caption: str) -> Row:
    """The first row of that caption."""
    return next(found for part in PARTS for found in part if found.caption == caption)


def withdrawn(pool: Path) -> set[str]:
    """Captions, as they were, of the rows that are withdrawn."""
    by_id = {found.sample_id: found.caption for part in PARTS for found in part}
    found = library.open(pool).sql("SELECT sample_id FROM samples WHERE reason = 'withdrawn'").rows()
    return {by_id[line["sample_id"]] for line in found}


def holding(pool: Path, number: int) -> list[str]:
    """Tars that hold an image, wherever they lie."""
    return [str(path.relative_to(pool)) for path in pool.rglob("*.tar") if image(number) in path.read_bytes()]


def take(pool: Path, *entries: str, **how: Any) -> Any:
    listed = pool.parent / "list.txt"
    listed.write_text("# who asked\n" + "\n".join(entries))
    report = library.open(pool).takedown(listed=listed, **how)
    assert report.proof.ok, report.proof.text()
    verified = library.open(pool).verify()
    assert verified.ok, verified.text()
    return report


@pytest.mark.long
def test_a_url_takes_all_its_captions(pool: Path) -> None:
    report = take(pool, address("pair") + "#fragment")
    assert withdrawn(pool) == {"first of two captions", "second of two captions"}
    assert report.outline.rows == 3  # a duplicate line of the list goes with its text, and keeps its reason
    assert not holding(pool, 1) and holding(pool, 2)


def test_a_sample_id_takes_one_caption_and_its_image_stays_under_the_name_of_the_other(pool: Path) -> None:
    first, second = row("first of two captions"), row("second of two captions")
    take(pool, first.sample_id)
    assert withdrawn(pool) == {"first of two captions"}
    line = library.open(pool).sql(f"SELECT * FROM samples WHERE sample_id = '{second.sample_id}'").rows()[0]
    members = dict(read_tar(pool / line["tar_file"]))
    assert members[f"{second.sample_id}.jpg"] == image(1) and members[f"{second.sample_id}.txt"] == b"second of two captions"
    assert not [path for path in pool.rglob("*.tar") if b"first of two captions" in path.read_bytes()]
    take(pool, second.sample_id)  # now nobody uses the image
    assert not holding(pool, 1)


def test_equal_bytes_under_other_urls_go_too_even_where_no_row_shows_them_any_more(pool: Path) -> None:
    report = take(pool, address("copied"))
    assert withdrawn(pool) == {"the original place", "the copy of it"} and report.outline.named == 1
    assert not holding(pool, 3)  # also of the row that the prefilter refuses now, whose image had been stored
    assert Pool.open(pool).snapshot("pairs_pixels").files == ()


@pytest.mark.long
def test_only_named_leaves_copies_and_their_bytes(pool: Path) -> None:
    take(pool, address("copied"), only_named=True)
    assert withdrawn(pool) == {"the original place"}
    assert any(path.startswith("tars/00001") for path in holding(pool, 3)) and not any("tars/00000" in path for path in holding(pool, 3))


@pytest.mark.long
@pytest.mark.parametrize("what", ["sha256", "image_sha256", "url_id"])
def test_hashes_and_url_ids_name_rows_as_well(pool: Path, what: str) -> None:
    found = row("alone with its image")
    body = image(2)
    names = {"sha256": hashlib.sha256(body + b"!").hexdigest(), "image_sha256": hashlib.sha256(body).hexdigest(), "url_id": found.url_id}
    take(pool, names[what].upper())
    assert withdrawn(pool) == {"alone with its image"} and not holding(pool, 2)


@pytest.mark.long
def test_a_condition_takes_rows_without_an_image_and_bars_their_url(pool: Path) -> None:
    library.open(pool).takedown(where="url LIKE '%/dead.jpg'")
    assert withdrawn(pool) == {"was never there"}
    barred = library.open(pool).sql("SELECT url_id, sha256 FROM suppressed").rows()
    assert barred == [{"url_id": row("was never there").url_id, "sha256": None}]


@pytest.mark.long
def test_the_same_request_again_changes_nothing(pool: Path) -> None:
    take(pool, address("pair"), "ab" * 32)
    before = sorted(str(path) for path in pool.rglob("*") if path.is_file() and "_delta_log" not in str(path))
    assert take(pool, address("pair"), "ab" * 32).record is None
    assert sorted(str(path) for path in pool.rglob("*") if path.is_file() and "_delta_log" not in str(path)) == before


@pytest.mark.long
def test_near_copies_are_counted_and_taken_when_asked(tmp_path: Path) -> None:
    parts = (PARTS[0], (Row("http://b.example/near.jpg", "looks like it", 3, score=0.9), *PARTS[1][2:]))
    pool = handmade.build(tmp_path / "pool", parts).path
    named = f"sample_id = '{row('the original place').sample_id}'"
    assert library.open(pool).takedown(where=named, dry_run=True, only_named=True).outline.near_copies == 1
    assert library.open(pool).takedown(where=named, only_named=True, near_copies=True).outline.rows == 2
    assert not holding(pool, 3)


@pytest.mark.long
def test_the_last_image_of_a_part_takes_tar_and_embeddings_along(pool: Path) -> None:
    take(pool, "http://c.example/only.jpg")
    assert not list((pool / "tars").glob("00002-*")) and not list((pool / "embeddings").rglob("00002-*"))


@pytest.mark.long
def test_a_part_without_such_a_row_keeps_its_very_files(pool: Path) -> None:
    def files() -> set[str]:
        return {str(path.relative_to(pool)) for path in pool.rglob("00003-*")}

    before = files()
    take(pool, address("single"), address("copied"))
    assert {name for name in files() if "tables/shards" not in name} >= {name for name in before if "tables/shards" not in name}


@pytest.mark.long
def test_texts_are_erased_unless_they_are_to_stay(pool: Path) -> None:
    take(pool, address("single"))
    take(pool, address("low"), keep_text=True)
    found = library.open(pool).sql("SELECT caption, label FROM samples WHERE reason = 'withdrawn' ORDER BY row").rows()
    assert found == [{"caption": None, "label": None}, {"caption": "does not fit its image", "label": "cat"}]


@pytest.mark.long
def test_what_the_pool_does_not_hold_is_barred_all_the_same(pool: Path) -> None:
    report = take(pool, "http://later.example/x.jpg", "ab" * 32, "cd" * 16, address("single"))
    assert report.outline.elsewhere == 3
    barred = read_suppression(Pool.open(pool))
    assert barred.holds(None, url_id("http://later.example/x.jpg")) and barred.holds("cd" * 16, None) and barred.holds_bytes("ab" * 32)


def test_planning_marks_barred_rows_and_drops_their_texts(pool: Path) -> None:
    take(pool, address("single"), row("first of two captions").sample_id)
    new = [
        row("alone with its image"),
        Row(address("single"), "a new caption"),
        row("first of two captions"),
        Row(address("pair"), "third"),
    ]
    ids = {name: [getattr(found, name) for found in new] for name in ("sample_id", "url_id", "caption")}
    planned = pa.table({**ids, "source.alt": ["x"] * 4, "reason": pa.array([None, None, "bad_url", None], pa.string())})
    marked = read_suppression(Pool.open(pool)).mark(planned).to_pylist()
    assert [line["reason"] for line in marked] == ["withdrawn", "withdrawn", "bad_url", None]
    assert [line["caption"] for line in marked] == [None, None, None, "third"]
    assert [line["source.alt"] for line in marked] == [None, None, None, "x"]


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["csv", "parquet", "tsv"])
def test_lists_come_as_tables_too(pool: Path, suffix: str) -> None:
    listed = pool.parent / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"who": ["x"], "url": [address("single")]}), listed)
    else:
        separator = "," if suffix == "csv" else "\t"
        listed.write_text(f"who{separator}url\nx{separator}{address('single')}\n")
    library.open(pool).takedown(listed=listed)
    assert withdrawn(pool) == {"alone with its image"}


def test_wrong_calls_are_one_clear_line(pool: Path, curate: Callable) -> None:
    (pool.parent / "bad.txt").write_text("http://a.example/x.jpg\nnonsense\n")
    with pytest.raises(InputError, match="line 2: 'nonsense' is neither"):
        library.open(pool).takedown(listed=pool.parent / "bad.txt")
    with pytest.raises(UsageError, match="did you mean 'caption'"):
        library.open(pool).takedown(where="captio = 'x'")
    with pytest.raises(UsageError, match="one condition"):
        library.open(pool).takedown(where="true); COPY rows TO 'x.csv'; SELECT (true")
    refused = curate("takedown", pool, "--where", "url LIKE '%single%'")
    assert refused.code == 2 and "--yes" in refused.err and "1 row to be withdrawn" in refused.err
    assert curate("takedown", pool).code == 2 and curate("purge", pool).code == 2
    assert "nothing was changed" in curate("takedown", pool, "--where", "true", "--dry-run").out
    assert withdrawn(pool) == set()


def test_nothing_else_writes_while_a_takedown_is_unfinished(pool: Path, curate: Callable) -> None:
    pool_ = Pool.open(pool)

    with claim(pool_, {}, removes=True) as run:
        targets = takedown_targets(pool_, f"url = '{address('single')}'", None, False, False)
        steps._begin(pool_, run, "takedown", targets, "killed here", True)
    for command in (["filter", pool, "name=good", "--where", "clip_tiny > 0"], ["pack", pool, "good"], ["report", pool]):
        said = curate(*command)
        assert said.code == 1 and f"curate takedown {pool}" in said.err, said.err
    assert curate("verify", pool).code == 3
    assert "interrupted" in curate("status", pool).out
    with pytest.raises(RemovalUnfinished):
        library.open(pool).dedupe()
    assert curate("takedown", pool).code == 0
    assert withdrawn(pool) == {"alone with its image"} and not holding(pool, 2)
    assert curate("verify", pool).code == 0 and curate("filter", pool, "name=good", "--where", "clip_tiny > 0").code == 0


@pytest.mark.long
def test_an_older_version_of_a_table_says_why_it_cannot_be_read(pool: Path) -> None:
    before = Pool.open(pool).snapshot("fetched").version
    take(pool, address("single"))
    with pytest.raises(Withdrawn, match="can no longer be read"):
        connect(Pool.open(pool), "good", {"fetched": before})


@pytest.mark.long
def test_embeddings_of_other_rows_are_the_same_bytes(pool: Path) -> None:
    take(pool, address("single"))
    line = library.open(pool).sql("SELECT * FROM samples WHERE part = 0 AND row = 0").rows()[0]
    vectors = np.load(pool / line["embedding_file"])
    assert np.array_equal(vectors[0], handmade.vector(PARTS[0][0])) and not vectors[2].any()


@pytest.mark.long
def test_an_index_without_tars_follows_its_images(pool: Path, curate: Callable) -> None:
    assert curate("pack", pool, "good", "mode=index").code == 0
    take(pool, address("single"))
    for line in (
        library.open(pool).sql("SELECT s.tar_file, s.members, f.image_sha256 FROM shards s JOIN fetched f USING (part, row)").rows()
    ):
        member = line["members"][0]
        data = (pool / line["tar_file"]).read_bytes()[member["offset"] : member["offset"] + member["size"]]
        assert hashlib.sha256(data).hexdigest() == line["image_sha256"]


@pytest.mark.long
def test_a_takedown_waits_for_no_run_and_a_run_notices_a_takedown(pool: Path) -> None:
    store = Pool.open(pool)
    with claim(store, {"rows": schemas.table("rows")}), pytest.raises(PoolBusy):
        take(pool, address("single"))
    assert withdrawn(pool) == set() and library.open(pool).verify().ok
    with claim(store, {}) as run:  # has read nothing that counts yet, but may have by the time it writes
        take(pool, address("single"))
        with pytest.raises(Fenced, match="taken down or purged meanwhile"):
            run.add("decisions_good", schemas.table("decisions_good"))
