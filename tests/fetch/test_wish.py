"""What a list says of its files reaches the codec through a whole part, row by row."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import InputError
from curate.fetch.phase import FetchPhase
from curate.media.image import decode_rgb
from curate.stage import PartTask
from curate.store import Pool
from tests.fetch.conftest import FaultServer, picture, quick

FACES = [[0.1, 0.1, 0.4, 0.6]]


def fetch_part(pool: Pool, columns: dict[str, pa.Array], urls: list[str], **settings: object) -> list[dict[str, object]]:
    rows = {
        "row": pa.array(range(len(urls)), pa.int32()),
        "sample_id": [f"{row:032x}" for row in range(len(urls))],
        "url_id": [hashlib.sha256(url.encode()).hexdigest()[:32] for url in urls],
        "url": urls,
        "caption": [None] * len(urls),
        "reason": pa.nulls(len(urls), pa.string()),
    }
    table = pa.table({**rows, **columns})
    schema = pa.schema([pa.field("part", pa.int32()), *table.schema, pa.field("basis", pa.string())])
    path = pool.table_folder("rows") / pool.write_part("rows", 0, table, "r", schema).path
    with FetchPhase(quick(**settings)).open() as do:
        report = do(PartTask(str(pool.path), 0, {"rows": str(path)}, "basis"))
    return pq.read_table(pool.table_folder("fetched") / report.files[0].path).to_pylist()


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


def stored(pool: Pool, record: dict[str, object]) -> bytes:
    data = (pool.path / str(record["tar_file"])).read_bytes()
    return data[int(str(record["tar_offset"])) :][: int(str(record["tar_size"]))]


def test_each_row_is_held_to_what_the_list_says_of_it(pool: Pool, server: FaultServer) -> None:
    urls = [server.url(f"/image/{seed}") for seed in (1, 2, 2, 2, 3)]
    promises = [hashlib.sha256(picture(seed)).hexdigest() for seed in (1, 2, 2, 9)]
    columns = {
        "source.sha256": pa.array([*promises, None]),
        "source.face_bboxes": pa.array([[], None, None, None, FACES], pa.list_(pa.list_(pa.float64()))),
    }
    found = fetch_part(pool, columns, urls)
    assert [row["reason"] for row in found] == [None, None, None, "hash_mismatch", None]
    assert [row["hash_drift"] for row in found] == [False, False, False, True, None]
    assert [row["blurred"] for row in found] == [0, None, None, None, 1]
    assert [row["md5"] for row in found] == [None] * 5
    assert server.count("/image/2") == 2  # once for each thing that the list says of it
    assert found[1]["tar_offset"] == found[2]["tar_offset"] and found[3]["tar_file"] is None
    face = decode_rgb(stored(pool, found[4]))[40:140, 45:130]
    plain = fetch_part(pool, columns, urls, blur_column=None)
    assert plain[4]["blurred"] is None and face.std() < decode_rgb(stored(pool, plain[4]))[40:140, 45:130].std()


def test_more_boxes_than_fit_a_message_store_nothing(pool: Pool, server: FaultServer) -> None:
    many = [[[0.1, 0.1, 0.2, 0.2]] * count for count in (500, 50_000)]
    texts = [str(boxes) for boxes in many] + [" " * 100_000 + str(FACES), "\u00e9" * 70_000]
    found = fetch_part(pool, {"source.boxes": pa.array(texts)}, [server.url(f"/image/{seed}") for seed in range(4)])
    assert [row["reason"] for row in found] == [None, "boxes_unreadable", None, "boxes_unreadable"]
    assert [row["blurred"] for row in found] == [500, None, 1, None]
    lists = pa.array(many, pa.list_(pa.list_(pa.float64())))
    found = fetch_part(pool, {"source.boxes": lists}, [server.url(f"/image/{seed}") for seed in range(2)])
    assert [row["reason"] for row in found] == [None, "boxes_unreadable"]


def test_the_md5_is_told_where_the_list_has_one(pool: Pool, server: FaultServer) -> None:
    md5 = [hashlib.md5(picture(4)).hexdigest(), "0" * 32, None]
    found = fetch_part(pool, {"source.md5": pa.array(md5)}, [server.url(f"/image/{seed}") for seed in (4, 5, 6)], verify_hash="off")
    assert [row["md5"] for row in found] == [md5[0], hashlib.md5(picture(5)).hexdigest(), None]
    assert [(row["reason"], row["hash_drift"]) for row in found] == [(None, False), (None, True), (None, None)]


def test_a_missing_column_stops_the_run_before_any_request(pool: Pool, server: FaultServer) -> None:
    columns = {"source.faces": pa.array(["[]"])}
    with pytest.raises(InputError, match="fetch.blur_column=face: .* did you mean 'faces'"):
        fetch_part(pool, columns, [server.url("/image/1")], blur_column="face")
    with pytest.raises(InputError, match="verify_hash=strict needs hashes"):
        fetch_part(pool, columns, [server.url("/image/1")], verify_hash="strict")
    with pytest.raises(InputError, match="block list .*none.txt cannot be read"):
        fetch_part(pool, columns, [server.url("/image/1")], blocklists={"domains": [str(pool.path / "none.txt")]})
    assert server.log == []
