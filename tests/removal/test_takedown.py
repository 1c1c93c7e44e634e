"""A takedown on a real pool: nothing of the rows is left in any file, nothing else has changed, nothing comes back."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.cli.app import execute
from tests.removal import scan
from tests.removal.conftest import Served
from tests.removal.scan import Secret


def rows(pool: Path, select: str) -> list[dict]:
    return library.open(pool).sql(select).rows()


def kept_ids(pool: Path, count: int = 2) -> list[str]:
    """Kept rows whose bytes no other row has."""
    sql = "SELECT sample_id FROM samples WHERE keep AND sha256 IN (SELECT sha256 FROM samples GROUP BY 1 HAVING count(*) = 1)"
    return [line["sample_id"] for line in rows(pool, f"{sql} ORDER BY part, row LIMIT {count}")]


Taken = tuple[Path, list[Secret], dict[str, tuple[str, str]]]


@pytest.fixture(scope="session")
def taken(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A pool out of which two rows were taken down, what they were, and what the pool stored before. To be read only."""
    pool = Path(shutil.copytree(served.made, tmp_path_factory.mktemp("taken") / "pool"))
    before, candidates = scan.stored(pool), [scan.secret(pool, name) for name in kept_ids(pool, 99)]
    page = (pool / "report/index.html").read_bytes()
    shown = [hidden for hidden in candidates if base64.b64encode(hidden.thumbnail) in page]
    secrets = [shown[0], next(hidden for hidden in candidates if hidden is not shown[0])]
    assert all({"image", "embedding"} <= {place.split(": ")[1] for place in scan.places(pool, hidden)} for hidden in secrets)
    listed = pool.parent / "request.txt"
    listed.write_text("".join(f"{hidden.sample_id}\n" for hidden in secrets))
    assert execute(["takedown", str(pool), "--list", str(listed), "--because", "a request", "--yes"]) == 0
    return pool, secrets, before


def test_no_file_holds_a_withdrawn_image_embedding_thumbnail_or_caption(taken: Taken) -> None:
    pool, secrets, _ = taken
    for hidden in secrets:
        assert scan.places(pool, hidden) == []
        assert not [path for path in scan.texts(pool, hidden.sample_id) if "suppressed" not in path and not is_id_table(path)]
        line = rows(pool, f"SELECT * FROM samples WHERE sample_id = '{hidden.sample_id}'")[0]
        assert line["reason"] == "withdrawn" and line["caption"] is None and line["clip_score"] is None and line["exif"] is None
        assert line["url"] and line["sha256"] is None and line["keep"] is False


def is_id_table(path: str) -> bool:
    """Rows keep their ids, groups may be named by one, and the record for downstream lists them."""
    return path.startswith(("tables/rows/", "tables/groups_", "takedowns/"))


def test_all_other_rows_keep_their_bytes_vectors_and_values(taken: Taken) -> None:
    pool, secrets, before = taken
    expected = {name: found for name, found in before.items() if name not in {hidden.sample_id for hidden in secrets}}
    assert scan.stored(pool) == expected


def test_the_pool_verifies_and_its_shards_load_in_webdataset(taken: Taken, curate: Callable) -> None:
    import webdataset

    pool, _, _ = taken
    said = curate("verify", pool)
    assert said.code == 0, said.out
    folder = next((pool / "shards").iterdir())
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").to_tuple("__key__", "jpg;png;webp")
    loaded = [key for key, _ in samples]
    assert sorted(loaded) == sorted(line["sample_id"] for line in rows(pool, "SELECT sample_id FROM samples WHERE keep"))
    assert sum(json.loads((folder / "sizes.json").read_text()).values()) == len(loaded)


@pytest.mark.long
def test_the_next_run_requests_nothing_and_calls_no_model(taken: Taken, served: Served, tmp_path: Path, curate: Callable) -> None:
    pool, secrets = Path(shutil.copytree(taken[0], tmp_path / "pool")), taken[1]
    requests = len(served.server.requests())
    assert curate(*served.arguments(pool, 0.1)).code == 0
    counters = json.loads((pool / "documents/last_run.json").read_text())["counters"]
    assert len(served.server.requests()) == requests
    assert not counters.get("requests") and not counters.get("model_calls") and not counters.get("decodes")
    assert curate("verify", pool).code == 0
    assert curate("takedown", pool, "--prove").code == 0  # groups, decisions, shards and the page are new now
    assert all(scan.places(pool, hidden) == [] for hidden in secrets)


@pytest.mark.long
def test_a_looser_prefilter_brings_back_what_it_refused_and_nothing_that_was_taken_down(
    pool: Path, served: Served, curate: Callable
) -> None:
    never, later = [line["url"] for line in rows(pool, "SELECT url FROM samples WHERE reason = 'prefilter' AND url LIKE '%.jpg' LIMIT 2")]
    fetched = rows(pool, f"SELECT url FROM samples WHERE sample_id = '{kept_ids(pool)[0]}'")[0]["url"]
    (pool.parent / "request.csv").write_text(f"url,why\n{never},asked\n{fetched},asked\n")
    assert curate("takedown", pool, "--list", pool.parent / "request.csv", "--yes").code == 0
    before = len(served.server.requests())
    assert curate(*served.arguments(pool, 0.0)).code == 0
    asked = {served.server.url(request.path) for request in served.server.requests()[before:]}
    assert later in asked and not asked & {never, fetched}
    assert {line["reason"] for line in rows(pool, f"SELECT reason FROM samples WHERE url IN ('{never}', '{fetched}')")} == {"withdrawn"}
    assert curate("verify", pool).code == 0 and curate("takedown", pool, "--prove").code == 0


@pytest.mark.long
def test_an_older_subset_says_that_it_is_withdrawn(pool: Path, curate: Callable) -> None:
    assert curate("filter", pool, "name=early", "--where", "original_width > 0").code == 0
    assert curate("pack", pool, "early").code == 0
    assert curate("dedupe", pool, "radius_bits=1").code == 0  # what `early` pinned is not the newest any more
    name = kept_ids(pool, 1)[0]
    hidden = scan.secret(pool, name)
    (pool.parent / "request.txt").write_text(name)
    said = curate("takedown", pool, "--list", pool.parent / "request.txt", "--yes")
    assert said.code == 0 and "subset early: withdrawn" in said.out, said.err
    assert scan.places(pool, hidden) == []
    assert curate("verify", pool).code == 0
    assert "subset early is withdrawn" in curate("status", pool).out
    refused = curate("pack", pool, "early")
    assert refused.code == 2 and "withdrawn" in refused.err and refused.err.count("\n") == 1
    assert curate("filter", pool, "name=early", "--where", "original_width > 0").code == 0 and curate("pack", pool, "early").code == 0


def test_the_record_for_downstream_names_rows_and_files_and_no_content(taken: Taken) -> None:
    pool, secrets, _ = taken
    told = json.loads((pool / "takedowns/00001.json").read_text())
    assert told["rows"] == 2 and told["because"] == "a request" and told["shards"] and set(told["subsets"].values()) == {"counted again"}
    assert all(not (pool / old).exists() and (new is None or (pool / new).exists()) for old, new in told["tars"].items())
    record = pq.read_table(pool / "takedowns/00001.parquet").to_pylist()
    assert {line["sample_id"] for line in record} == {hidden.sample_id for hidden in secrets}
    assert not [line for line in record for hidden in secrets if hidden.caption in str(line)]


@pytest.mark.parametrize("what", ["image", "embedding", "thumbnail"])
def test_both_searches_find_a_copy_that_was_left_behind(taken: Taken, what: str, curate: Callable) -> None:
    """The proof can fail: a forgotten file is found, by the test's own search and by the command's."""
    pool, secrets, _ = taken
    left = {
        "image": ("tmp/left.part", b"\0" * 777 + secrets[0].image),
        "embedding": ("embeddings/copy.bin", b"\x93" * 11 + secrets[0].embedding),
        "thumbnail": ("pages/old.html", b"<img src=data:image/jpeg;base64," + base64.b64encode(secrets[0].thumbnail) + b">"),
    }
    name, content = left[what]
    (pool / name).parent.mkdir(exist_ok=True)
    (pool / name).write_bytes(content)
    assert [place for place in scan.places(pool, secrets[0]) if name in place]
    said = curate("takedown", pool, "--prove")
    assert said.code == 3 and name in said.out
    (pool / name).unlink()
    assert curate("takedown", pool, "--prove").code == 0


def test_attached_columns_lose_a_withdrawn_row_and_a_newer_table_does_not_bring_it_back(
    handmade_pool: Path, tmp_path: Path, curate: Callable
) -> None:
    pool, table = Path(shutil.copytree(handmade_pool, tmp_path / "pool")), tmp_path / "recap.parquet"
    urls = [line["url"] for line in rows(pool, "SELECT DISTINCT url FROM samples WHERE url IS NOT NULL ORDER BY url")]
    pq.write_table(pa.table({"url": urls, "recap": [f"told again, {number}" for number in range(len(urls))]}), table)
    attach = ("attach", pool, table, "--on", "url", "--as", "recap")
    assert curate(*attach).code == 0
    (gone,) = rows(pool, "SELECT sample_id, recap FROM samples WHERE tar_file IS NOT NULL ORDER BY sample_id LIMIT 1")
    assert gone["recap"] is not None
    assert curate("takedown", pool, "--where", f"sample_id = '{gone['sample_id']}'", "--yes").code == 0
    for _ in range(2):
        (left,) = rows(pool, f"SELECT recap, reason FROM samples WHERE sample_id = '{gone['sample_id']}'")
        assert left == {"recap": None, "reason": "withdrawn"}
        assert curate(*attach).code == 0
    assert curate("verify", pool).code == 0
