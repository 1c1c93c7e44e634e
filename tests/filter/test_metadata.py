"""Pools of DataComp's metadata alone: policies decide before anything was fetched, and uids leave in DataComp's own form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.api import Pool
from curate.catalog.sql import render, write
from curate.errors import InputError, SettingsError, UsageError
from curate.recipe import load_recipe, run_recipe
from tests.derive.pools import vectors

Planned = tuple[Pool, dict[str, dict[str, Any]], Path]
ROWS = 90
ENGLISH = ["a photo of the old harbour at night", "picture of two dogs in the garden", "this is a house by the sea"]
GERMAN = ["ein Bild von dem alten Hafen in der Nacht", "das ist ein Haus an der See"]


def uid(number: int) -> str:
    """Not in the order of the numbers, and with halves whose first bit is set."""
    return f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{(number + 1) * 0xC2B2AE3D27D4EB4F % 2**64:016x}"


def metadata(folder: Path) -> dict[str, dict[str, Any]]:
    """Two shards as DataComp publishes them, and their rows by uid."""
    folder.mkdir()
    draw, rows = np.random.default_rng(3), {}
    for shard in range(2):
        numbers = range(shard * ROWS // 2, (shard + 1) * ROWS // 2)
        columns = {
            "uid": [uid(number) for number in numbers],
            "url": [f"https://site{number % 7}.example/{number}.jpg" for number in numbers],
            "text": [f"{draw.choice(ENGLISH if number % 4 else GERMAN)} {number}" for number in numbers],
            "original_width": draw.integers(100, 900, len(numbers)).tolist(),
            "original_height": draw.integers(100, 900, len(numbers)).tolist(),
            "clip_l14_similarity_score": (draw.integers(10, 30, len(numbers)) / 100).tolist(),
        }
        pq.write_table(pa.table(columns), folder / f"{shard:08d}.parquet")
        image, text = (vectors(10 * shard + side, len(numbers), 8) for side in (0, 1))
        np.savez_compressed(folder / f"{shard:08d}.npz", l14_img=image, l14_txt=text, b32_img=image[:, :4], b32_txt=text[:, :4])
        for at, number in enumerate(numbers):
            rows[uid(number)] = {**{name: values[at] for name, values in columns.items()}, "image": image[at], "caption": text[at]}
    return rows


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    folder = tmp_path_factory.mktemp("metadata")
    rows = metadata(folder / "metadata")
    run_recipe(load_recipe("ingest"), folder / "pool", [f"input.path={folder / 'metadata'}", "plan.rows_per_part=30"], only="plan")
    return library.open(folder / "pool"), rows, folder


def kept(pool: Pool, policy: str) -> set[str]:
    return {line["uid"] for line in pool.sql("SELECT uid FROM samples WHERE keep", policy=policy).rows()}


def test_basic_filtering_before_any_fetch(planned: Planned) -> None:
    pool, rows, _ = planned
    with pytest.raises(UsageError, match="the pool has no images yet: fetch first, or score captions alone  .image=null clip=null"):
        pool.score()
    assert pool.score(image=None).reasons == {"ok": ROWS}
    subset = pool.filter("datacomp_basic").subset
    wanted = {
        one for one, row in rows.items()
        if not row["text"].startswith(("ein", "das")) and min(row["original_width"], row["original_height"]) >= 200
        and max(row["original_width"], row["original_height"]) <= 3 * min(row["original_width"], row["original_height"])
    }  # fmt: skip
    assert kept(pool, "datacomp_basic") == wanted and subset.kept == len(wanted) > 20
    assert subset.pending == 0 and sum(subset.dropped.values()) == ROWS - len(wanted)
    pool.verify().require()
    assert pool.funnel().kept == len(wanted)
    with pytest.raises(UsageError, match="'datacomp_basic' was decided before any image was fetched: fetch, apply the policy again"):
        pool.pack()


def test_uids_leave_as_datacomp_has_them_and_come_in_again(planned: Planned) -> None:
    pool, rows, folder = planned
    pool.filter(where="clip_l14_similarity_score >= 0.2", name="best")
    wanted = [one for one, row in rows.items() if row["clip_l14_similarity_score"] >= 0.2]
    write(pool.sql("SELECT uid FROM samples WHERE keep", policy="best").arrow(), folder / "best.npy", "npy")
    found = np.load(folder / "best.npy")
    theirs = np.array([(int(one[:16], 16), int(one[16:32], 16)) for one in wanted], np.dtype("u8,u8"))  # as DataComp's baselines write
    theirs.sort()
    assert found.dtype == theirs.dtype and found.tolist() == theirs.tolist() and 20 < len(found) < ROWS
    given = [f"input.path={folder / 'metadata'}", "plan.rows_per_part=30", f"prefilter.uid_file={folder / 'best.npy'}"]
    run_recipe(load_recipe("ingest"), folder / "second", given, only="plan")
    run_recipe(load_recipe("ingest"), folder / "second", given, only="prefilter")
    passed = library.open(folder / "second").sql("SELECT uid FROM samples WHERE reason IS NULL").rows()
    assert {line["uid"] for line in passed} == set(wanted)


def test_what_is_no_uid_is_told_with_column_and_row(planned: Planned) -> None:
    pool, _, folder = planned
    with pytest.raises(UsageError, match="column 'url', row 0: 'https://.*' is no uid of 32 hex digits"):
        write(pool.sql("SELECT url FROM samples").arrow(), folder / "no.npy", "npy")
    with pytest.raises(UsageError, match="one column of uids, not 2: SELECT uid"):
        write(pool.sql("SELECT uid, url FROM samples").arrow(), folder / "no.npy", "npy")
    with pytest.raises(UsageError, match="give a file"):
        render(pool.sql("SELECT uid FROM samples").arrow(), "npy")
    assert not (folder / "no.npy").exists()


def test_embeddings_come_along_and_every_policy_on_them_runs(planned: Planned) -> None:
    pool, rows, folder = planned
    report = pool.attach(folder / "metadata", "uid", "l14", ["clip_l14=clip_l14_similarity_score"], images="l14_img", texts="l14_txt")
    assert (report.matched, report.columns) == (ROWS, ("clip_l14",))
    for line in pool.sql("SELECT part, row, uid, embedding_file FROM samples").rows():
        stored = np.load(pool.path / line["embedding_file"])[line["row"]]
        wanted = np.stack([rows[line["uid"]][side].astype(np.float32) for side in ("image", "caption")])
        np.testing.assert_allclose(stored, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-3)
    pool.verify().require()
    np.save(folder / "reference.npy", vectors(7, 5, 8))
    pool.score(image=None)
    pool.derive("near", of="l14", clusters={"reference": {"path": str(folder / "reference.npy")}, "count": 6})
    pool.filter("datacomp_image_clip")
    ranked = sorted(rows, key=lambda one: -rows[one]["clip_l14_similarity_score"])
    least = rows[ranked[ROWS * 3 // 10 - 1]]["clip_l14_similarity_score"]
    found = kept(pool, "datacomp_image_clip")
    assert found and all(
        rows[one]["clip_l14_similarity_score"] >= least and not rows[one]["text"].startswith(("ein", "das")) for one in found
    )


def test_npy_files_beside_and_a_cosine_where_no_score_comes_along(planned: Planned) -> None:
    pool, rows, folder = planned
    for shard in range(2):
        with np.load(folder / "metadata" / f"{shard:08d}.npz") as arrays:
            np.save(folder / f"img_emb_{shard}.npy", arrays["b32_img"].astype(np.float32) * 7)
            np.save(folder / f"text_emb_{shard}.npy", arrays["b32_txt"])
    pool.attach(folder / "metadata", "uid", "b32", images=f"{folder}/img_emb_*.npy", texts=f"{folder}/text_emb_*.npy")
    for line in pool.sql("SELECT uid, clip_b32 FROM samples").rows():
        image, text = (rows[line["uid"]][side][:4].astype(float) for side in ("image", "caption"))
        assert line["clip_b32"] == pytest.approx(image @ text / np.linalg.norm(image) / np.linalg.norm(text), abs=2e-3)
    pool.verify().require()


def test_embeddings_that_do_not_fit_are_told_with_file_and_array(planned: Planned, tmp_path: Path) -> None:
    pool, _, folder = planned
    table, good = pq.read_table(folder / "metadata" / "00000000.parquet"), vectors(1, ROWS // 2, 8)
    nan = good.copy()
    nan[3, 2] = np.nan
    for arrays, told in [
        ({"i": good}, "a.npz: no array 't'; there are i"),
        ({"i": good, "t": good[:-1]}, "a.npz, array 't': 44 vectors for the 45 rows of a.parquet"),
        ({"i": good, "t": good[:, :4]}, "a.npz, array 't': vectors of 4 dimensions, the pool's have 8"),
        ({"i": nan, "t": good}, "a.npz, array 'i': row 3 is zero, NaN or infinite"),
        ({"i": good.astype(int), "t": good}, "a.npz, array 'i': int64 of shape"),
    ]:
        pq.write_table(table, tmp_path / "a.parquet")
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(InputError, match=told) as caught:
            pool.attach(tmp_path / "a.parquet", "uid", "bad", images="i", texts="t")
        assert "\n" not in str(caught.value)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(InputError, match="a.npz: there is no such file beside a.parquet"):
        pool.attach(tmp_path / "a.parquet", "uid", "bad", images="i", texts="t")
    with pytest.raises(InputError, match="0 files for 1 tables"):
        pool.attach(tmp_path / "a.parquet", "uid", "bad", images=f"{tmp_path}/*.npy", texts="t")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", i=np.vstack([good, good[:1]]), t=np.vstack([good, good[:1]]))
    with pytest.raises(InputError, match="column 'uid': .* stands 2 times"):
        pool.attach(tmp_path / "a.parquet", "uid", "bad", images="i", texts="t")
    with pytest.raises(SettingsError, match="embeddings come in pairs"):
        pool.attach(tmp_path / "a.parquet", "uid", "bad", images="i")
    assert not list((pool.path / "tmp").glob("*.npy"))
