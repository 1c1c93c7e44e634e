"""Descriptions of subsets, read by MLCommons' own package: valid, and the records are those that were packed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

import curate
from curate import schema as schemas
from curate.errors import InputError, UsageError, Withdrawn
from curate.shards.subset import read_subset, write_subset
from tests.shards import pools
from tests.shards.pools import Sample

CARD = {
    "license": "https://creativecommons.org/licenses/by/4.0/",
    "cite_as": "@misc{mine}",
    "url": "https://example.org/mine",
    "creators": ("A. Author",),
    "version": "1.0.0",
    "date_published": "2026-01-31",
}


@pytest.fixture(scope="module")
def mlcroissant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package, which unpacks tars into a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("croissant")))
        import mlcroissant as package

        yield package


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> curate.Pool:
    """That nobody changes."""
    return packed(tmp_path_factory.mktemp("packed"))


def packed(folder: Path) -> curate.Pool:
    samples = [Sample(caption=f"Grüße {row}", score=row / 10 if row % 4 else None) for row in range(7)]
    pools.build(folder / "pool", [samples, [Sample(reason="http_not_found"), Sample(caption="last")]], groups=None)
    opened = curate.open(folder / "pool")
    opened.filter("random", share=1)
    opened.pack("random", shard_samples=5)
    return opened


def test_the_records_are_what_was_packed(pool: curate.Pool, mlcroissant: ModuleType) -> None:
    report = pool.croissant(**CARD)
    assert (report.subset, report.files, report.file) == ("random", 4, pool.path / "shards" / "random" / "croissant.json")
    found = mlcroissant.Dataset(jsonld=str(report.file))
    assert not found.metadata.ctx.issues.errors and not found.metadata.ctx.issues.warnings
    records = {record["samples/sample_id"].decode(): record for record in found.records("samples")}
    lines = pool.sql("SELECT * FROM samples WHERE keep").rows()
    assert records.keys() == {line["sample_id"] for line in lines} and len(lines) == 8
    for line in lines:
        record = records[line["sample_id"]]
        assert record["samples/caption"].decode() == line["caption"] and record["samples/url"].decode() == line["url"]
        assert record["samples/clip_vit_b_32_openai"] == (line["clip_score"] and pytest.approx(line["clip_score"]))
        assert record["samples/original_width"] == line["original_width"]
    images = {record["images_jpg/sample_id"].decode(): record["images_jpg/image"] for record in found.records("images_jpg")}
    assert images.keys() == records.keys() and {image.size for image in images.values()} == {(24, 24)}
    assert pool.verify().ok


def test_fields_say_what_the_schema_says_and_hashes_are_those_of_the_files(pool: curate.Pool) -> None:
    document = json.loads(pool.croissant(**CARD).file.read_text())
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0" and document["license"] == CARD["license"]
    fields = {field["name"]: field for field in document["recordSet"][0]["field"]}
    for name, table in (("caption", "rows"), ("original_width", "fetched"), ("caption_words", "scores")):
        assert fields[name]["description"] == schemas.table(table).field(name).metadata[b"comment"].decode()
    assert "cosine" in fields["clip_vit_b_32_openai"]["description"] and "colour_grid" not in fields
    objects = [one for one in document["distribution"] if one["@type"] == "cr:FileObject"]
    for one in objects:
        data = (pool.path / "shards" / "random" / one["contentUrl"]).read_bytes()
        assert (one["sha256"], one["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")


def test_the_same_words_give_the_same_bytes(pool: curate.Pool) -> None:
    first = pool.croissant(**CARD).file.read_bytes()
    again = pool.croissant("random", pool.path / "shards" / "random" / "croissant.json", **CARD).file.read_bytes()
    assert first == again and str(pool.path.parent).encode() not in first
    above = json.loads(pool.croissant(output=pool.path / "shards" / "up.json", base_url="https://example.org/data/").file.read_text())
    assert above["distribution"][0]["contentUrl"] == "https://example.org/data/random/00000.parquet"
    assert "license" not in above and "datePublished" not in above


def test_a_damaged_shard_is_noticed_by_those_who_load_it(tmp_path: Path, mlcroissant: ModuleType) -> None:
    file = packed(tmp_path).croissant(**CARD).file
    shard = file.parent / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(Exception, match=r"Download\(00000.tar\)"):
        list(mlcroissant.Dataset(jsonld=str(file)).records("images_jpg"))


def test_tables_without_images(pool: curate.Pool, tmp_path: Path, mlcroissant: ModuleType) -> None:
    table = tmp_path / "kept.parquet"
    pq.write_table(pool.sql("SELECT url, caption, failed_rules, keep FROM samples WHERE keep").arrow(), table)
    report = pool.croissant(tables=[table], **CARD)
    assert report.file == tmp_path / "croissant.json"
    found = mlcroissant.Dataset(jsonld=str(report.file))
    assert [record["samples/keep"] for record in found.records("samples")] == [True] * 8
    with pytest.raises(UsageError, match=r"kept.parquet lies outside of .*: write the description there or above"):
        pool.croissant(output=pool.path / "croissant.json", tables=[table])
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match="bad.parquet: cannot be read as Parquet"):
        pool.croissant(tables=[tmp_path / "bad.parquet"])
    with pytest.raises(InputError, match=r"nothing.parquet: No such file"):
        pool.croissant(tables=[tmp_path / "nothing.parquet"])


def test_what_is_not_packed_as_it_is_now_is_refused(tmp_path: Path) -> None:
    pool = packed(tmp_path)
    pool.filter("random", share=0.5)
    with pytest.raises(UsageError, match="was packed before its policy was applied anew"):
        pool.croissant()
    pool.pack("random", mode="index")
    with pytest.raises(UsageError, match="has no shards of its own"):
        pool.croissant()
    pool.filter(where="true", name="other")
    with pytest.raises(UsageError, match="run  curate pack  first"):
        pool.croissant("other")
    store = pool._store
    write_subset(store, read_subset(store, "random").model_copy(update={"withdrawn": True}))
    with pytest.raises(Withdrawn):
        pool.croissant("random")
