"""Removals in a pool with a further list: its rows point into tars of earlier parts, which only these parts write."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.catalog.borrowed import Borrowed
from curate.cli.app import execute
from curate.media.tar import read as read_tar
from curate.store import Pool
from tests.removal import scan
from tests.removal.conftest import Served

SHARED = 30


def rows(pool: Path, select: str) -> list[dict]:
    return library.open(pool).sql(select).rows()


def stored(pool: Path) -> dict[str, str]:
    """sample_id -> hash of the bytes that the pool stores for it."""
    return {name: image for name, (image, _) in scan.stored(pool).items()}


@pytest.fixture(scope="session")
def added(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool with a further list: other captions of images that it has, kept and dropped ones. To be read or copied."""
    pool = Path(shutil.copytree(served.made, tmp_path_factory.mktemp("added") / "pool"))
    urls = [line["url"] for line in rows(pool, f"SELECT DISTINCT url FROM samples WHERE tar_file IS NOT NULL ORDER BY url LIMIT {SHARED}")]
    table = pa.table({"url": urls, "caption": [f"told otherwise, {n}" for n in range(len(urls))], "similarity": [1.0] * len(urls)})
    pq.write_table(table, pool.parent / "second.parquet")
    before = len(served.server.requests())
    assert execute(["add", str(pool), str(pool.parent / "second.parquet")]) == 0
    assert len(served.server.requests()) == before, "all images are there"
    assert execute(served.arguments(pool, 0.1)) == 0
    return pool


def pairs(pool: Path, condition: str) -> list[dict]:
    """The owner of an image and the row of the further list that uses it, where nobody else has these bytes."""
    return rows(
        pool,
        f"""SELECT a.sample_id AS owner, b.sample_id AS guest, a.url, a.part, a.tar_file, a.image_sha256
        FROM samples a JOIN samples b ON a.url = b.url AND a.part < b.part
        WHERE b.tar_file = a.tar_file AND b.caption LIKE 'told otherwise%' AND {condition}
        AND a.image_sha256 IN (SELECT image_sha256 FROM samples GROUP BY 1 HAVING count(*) = 2) ORDER BY ALL""",
    )


def take(pool: Path, entry: str, curate: Callable) -> None:
    (pool.parent / "request.txt").write_text(entry)
    said = curate("takedown", pool, "--list", pool.parent / "request.txt", "--yes")
    assert said.code == 0, said.out + said.err


def is_whole(pool: Path, expected: dict[str, str], curate: Callable) -> None:
    """Every row that stays has the bytes that it had, and the pool verifies."""
    assert stored(pool) == expected
    said = curate("verify", pool)
    assert said.code == 0, said.out


def asks_nothing(pool: Path, served: Served, curate: Callable) -> None:
    """The next run has nothing to fetch and nothing to score."""
    before = len(served.server.requests())
    assert curate(*served.arguments(pool, 0.1)).code == 0
    counters = json.loads((pool / "documents/last_run.json").read_text())["counters"]
    assert len(served.server.requests()) == before
    assert not counters.get("requests") and not counters.get("model_calls") and not counters.get("decodes")
    said = curate("verify", pool)
    assert said.code == 0, said.out


def test_each_way_to_withdraw_a_row_whose_image_lies_in_another_part(added: Path, served: Served, tmp_path: Path, curate: Callable) -> None:
    pool = Path(shutil.copytree(added, tmp_path / "pool"))
    assert Borrowed.of(Pool.open(pool).snapshot("fetched")).places
    owned, whole, guest, *_ = pairs(pool, "a.keep OR b.keep")
    hidden = {name: scan.secret(pool, pair["owner"]) for name, pair in (("owned", owned), ("whole", whole))}
    expected = stored(pool)

    take(pool, owned["owner"], curate)  # the row of the further list goes on using the image, under its own name
    expected.pop(owned["owner"])
    is_whole(pool, expected, curate)
    place = rows(pool, f"SELECT * FROM samples WHERE sample_id = '{owned['guest']}'")[0]["tar_file"]
    assert place.startswith(f"tars/{owned['part']:05d}-") and place != owned["tar_file"] and not (pool / owned["tar_file"]).exists()
    members = dict(read_tar(pool / place))
    assert members[f"{owned['guest']}.jpg"] == hidden["owned"].image and not [name for name in members if owned["owner"] in name]
    assert members[f"{owned['guest']}.txt"].startswith(b"told otherwise")

    take(pool, whole["url"], curate)  # both rows, and the image
    for name in ("owner", "guest"):
        expected.pop(whole[name])
    is_whole(pool, expected, curate)
    assert scan.places(pool, hidden["whole"]) == []

    take(pool, guest["guest"], curate)  # the image stays for its owner
    expected.pop(guest["guest"])
    is_whole(pool, expected, curate)

    take(pool, owned["guest"], curate)  # its last user, a row of another part than its tar's
    expected.pop(owned["guest"])
    is_whole(pool, expected, curate)
    assert scan.places(pool, hidden["owned"]) == []
    asks_nothing(pool, served, curate)
    assert curate("takedown", pool, "--prove").code == 0


def test_purge_deletes_images_that_no_row_of_any_part_needs(added: Path, served: Served, tmp_path: Path, curate: Callable) -> None:
    pool = Path(shutil.copytree(added, tmp_path / "pool"))
    both, one = pairs(pool, "NOT a.keep AND NOT b.keep"), pairs(pool, "a.keep != b.keep")
    assert both, "the further list should hold images that are dropped"
    expected = stored(pool)
    said = curate("purge", pool, "--where", "outcome = 'dropped' AND tar_file IS NOT NULL", "--yes")
    assert said.code == 0, said.err
    left = stored(pool)
    for pair in both:
        assert pair["owner"] not in left and pair["guest"] not in left
        assert not [path for path in (pool / "tars").iterdir() if pair["image_sha256"] in members_of(path)]
    for pair in one:
        assert pair["owner"] in left and pair["guest"] in left
    is_whole(pool, {name: image for name, image in expected.items() if name in left}, curate)
    kept = {line["sample_id"] for line in rows(pool, "SELECT sample_id FROM samples WHERE keep")}
    assert kept <= left.keys()
    asks_nothing(pool, served, curate)


def members_of(tar: Path) -> set[str]:
    """sha256 of every member."""
    return {hashlib.sha256(content).hexdigest() for _, content in read_tar(tar)}
