"""Verification passes on a sound pool, and each check fails on the damage that it is there for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.catalog.findings import Check, VerifyReport
from curate.catalog.verify import verify
from curate.compact import compact
from curate.errors import AccountingError
from curate.lease import claim
from curate.media.tar import members
from curate.stage import Crew
from curate.store import Pool, file_sha256
from tests.catalog import pools
from tests.dedupe.arrays import inline

Damage = Callable[[Pool], None]


def broken(pool: Pool, deep: bool = True) -> dict[str, str]:
    """First offender of each check that failed."""
    return {check.name: check.offenders[0] for check in verify(pool, deep).checks if not check.ok}


def test_a_sound_pool_passes_and_every_check_looked_at_something(packed: Pool) -> None:
    with claim(packed, {}) as run:
        compact(packed, run, Crew(inline, 1))
    report = verify(packed)
    assert report.ok, report.text()
    report.require()
    assert all(check.checked > 0 for check in report.checks), report.text()
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_a_pool_that_is_not_finished_is_sound(tmp_path: Path) -> None:
    assert broken(Pool.create(tmp_path / "empty")) == {}
    pool = pools.build(tmp_path / "pool", policy=None)
    with pools.claim(pool, {"fetched": pool.snapshot("fetched").schema}) as run:
        run.replace_all("fetched", pool.snapshot("fetched").files[:1])
    assert broken(pool) == {}


def test_images_of_rows_that_a_tighter_prefilter_refuses_may_stay(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", policy=None)
    lines = pool.snapshot("fetched").read(parts=[0]).to_pylist()
    lines[0] |= dict.fromkeys(lines[0].keys() - {"part", "row", "basis"}) | {"reason": "prefilter"}
    schema = pool.snapshot("fetched").schema
    pools.replace_part(pool, "fetched", 0, pa.Table.from_pylist(lines, schema=schema), schema)
    assert broken(pool) == {}


# -- tables


def change(pool: Pool, table: str, column: str, values: list[object], part: int = 0) -> None:
    """Commits a part with another column."""
    data, schema = pool.snapshot(table).read(parts=[part]), pool.snapshot(table).schema
    changed = data.set_column(schema.get_field_index(column), column, pa.array(values, schema.field(column).type))
    pools.replace_part(pool, table, part, changed, schema)


def take(pool: Pool, table: str, rows: list[int], part: int = 0) -> None:
    """Commits a part with other rows."""
    pools.replace_part(pool, table, part, pool.snapshot(table).read(parts=[part]).take(rows), pool.snapshot(table).schema)


@pytest.mark.parametrize(
    ("table", "rows", "says"),
    [
        ("fetched", [0, 1, 2, 4, 5], "row 3 is missing"),
        ("scores_base", [0, 1, 2, 3, 4, 5, 5], "row 5 stands more than once"),
        ("groups_pixels", [1, 0, 2, 3, 4, 5], "rows are out of order"),
        ("decisions_usual", [0, 1, 2, 4, 5], "row 3 is missing"),
        ("decisions_prefilter", [1, 0, 2, 3, 4, 5], "rows are out of order"),
    ],
)
def test_rows_that_do_not_line_up(pool: Pool, table: str, rows: list[int], says: str) -> None:
    take(pool, table, rows)
    assert broken(pool)["alignment"] == f"{table}, part 0: {says}" + (" (1 in all)" if "missing" in says else "")


def test_a_row_that_was_never_read(pool: Pool) -> None:
    change(pool, "scores_base", "row", [0, 1, 2, 3, 4, 9])
    assert "row 5 is missing" in broken(pool)["alignment"]


def test_a_part_that_rows_does_not_have(pool: Pool) -> None:
    data = pool.snapshot("groups_pixels").read(parts=[0])
    pools.replace_part(pool, "groups_pixels", 7, data, pool.snapshot("groups_pixels").schema)
    assert broken(pool)["alignment"] == "groups_pixels, part 7: table rows has no such part"


def test_a_row_that_ends_twice_does_not_balance(pool: Pool) -> None:
    take(pool, "decisions_usual", [0, 0, 1, 2, 3, 4, 5])
    assert broken(pool)["row accounting"] == "usual: 12 rows in, 13 ends, 12 distinct rows"


def test_a_lost_input_row(pool: Pool) -> None:
    take(pool, "rows", [0, 1, 2, 4, 5])
    assert broken(pool)["alignment"] == "rows, part 0: row 3 is missing (1 in all)"


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("fetched", "reason", [None, None, None, "lost_in_space", None, None]),
        ("scores_base", "reason", [None, None, None, None, None, "lost_in_space"]),
        ("decisions_usual", "reason", [None, "lost_in_space", None, None, "caption_short", "clip_score_low"]),
        ("decisions_usual", "failed_rules", [[], ["duplicate", "lost_in_space"], [], None, ["caption_short"], ["clip_score_low"]]),
    ],
)
def test_a_reason_that_nobody_knows(pool: Pool, table: str, column: str, values: list[object]) -> None:
    change(pool, table, column, values)
    assert broken(pool)["reasons"].startswith(f"{table}: unknown reason 'lost_in_space', first at part 0, row")


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("keep", [True, True, True, False, False, False], "row 1 is kept although it has a reason"),
        ("keep", [False, False, True, False, False, False], "row 0 is dropped without a reason"),
        ("keep", [True, False, True, True, False, False], "row 3 is kept although it has a reason"),
        (
            "failed_rules",
            [["duplicate"], ["duplicate"], [], None, ["caption_short"], ["clip_score_low"]],
            "row 0 is kept although it fails",
        ),
        (
            "failed_rules",
            [[], ["duplicate"], [], None, ["clip_score_low"], ["clip_score_low"]],
            "row 4 is dropped for a rule that it does not",
        ),
    ],
)
def test_a_decision_that_contradicts_itself(pool: Pool, column: str, values: list[object], says: str) -> None:
    change(pool, "decisions_usual", column, values)
    assert says in broken(pool)["decisions"]


# -- files


def only(pool: Pool, pattern: str) -> Path:
    return sorted(pool.path.glob(pattern))[0]


def image_in(tar: Path) -> int:
    """Where an image's bytes begin."""
    return next(member.offset for member in members(tar) if member.name.endswith(".jpg"))


@pytest.mark.parametrize("pattern", ["tables/scores_base/*.parquet", "embeddings/*.npy", "tars/*.tar"])
def test_a_flipped_byte_in_a_published_file(packed: Pool, pattern: str) -> None:
    path = only(packed, pattern)
    pools.flip_byte(path, path.stat().st_size - 1 if path.suffix == ".npy" else image_in(path) + 30 if path.suffix == ".tar" else 5)
    assert broken(packed)["file hashes"] == f"{path.relative_to(packed.path)}: its bytes have another sha256"


def test_a_missing_and_a_cut_table_file(packed: Pool) -> None:
    path = Path(packed.snapshot("groups_pixels").paths()[0])
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    assert f"{len(content) + 1:,} bytes, not {len(content):,}" in broken(packed, deep=False)["file hashes"]


def test_other_image_bytes_in_a_part_tar(pool: Pool) -> None:
    tar = only(pool, "tars/*.tar")
    pools.flip_byte(tar, image_in(tar) + 30)
    offender = broken(pool)["images"]
    assert "part 0, row 0" in offender and "another sha256" in offender
    assert "images" not in broken(pool, deep=False)


def test_a_tar_that_is_gone_or_damaged(pool: Pool) -> None:
    tar = only(pool, "tars/*.tar")
    pools.flip_byte(tar, 0)
    assert "damaged header at 0" in broken(pool)["images"]
    tar.unlink()
    assert "cannot be read" in broken(pool)["images"]


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("tar_offset", [1024, 512, 512, None, 512, 512], "has no image of"),
        ("tar_file", [None] * 6, "has no reason and no image"),
        ("reason", ["dns_timeout", None, None, "http_not_found", None, None], "has reason dns_timeout and an image"),
        ("image_sha256", ["0" * 64] * 6, "another sha256"),
    ],
)
def test_rows_that_point_at_no_image(pool: Pool, column: str, values: list[object], says: str) -> None:
    change(pool, "fetched", column, values)
    assert says in broken(pool)["images"]


def test_an_image_that_no_row_has(pool: Pool) -> None:
    data = pool.snapshot("fetched").read(parts=[0]).to_pylist()
    data[5] |= {"reason": "dns_timeout", "tar_file": None, "tar_offset": None, "tar_size": None, "image_sha256": None}
    schema = pool.snapshot("fetched").schema
    pools.replace_part(pool, "fetched", 0, pa.Table.from_pylist(data, schema=schema), schema)
    assert "belongs to no row" in broken(pool)["images"]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((5, 2, 4), np.float16), "has 5 lines for 6 rows"),
        (np.zeros((6, 2, 4), np.float32), "holds float32"),
        (np.ones((6, 2, 4), np.float16), "row 3 has an embedding and no score"),
    ],
)
def test_embeddings_that_do_not_line_up(pool: Pool, array: np.ndarray, says: str) -> None:
    temporary = pool.temporary(".npy")
    np.save(temporary, array)
    change(pool, "scores_base", "embedding_file", [pool.publish(temporary, "embeddings", "00000")] * 6)
    assert says in broken(pool)["embeddings"]


# -- shards


def shard(pool: Pool) -> Path:
    return pool.path / "shards" / "usual" / "00000.tar"


def add_member(pool: Pool) -> None:
    """One more image at the end of a shard, its size and sha256 entered into the index as a forger would."""
    contents = [(m.name, shard(pool).read_bytes()[m.offset : m.offset + m.size]) for m in members(shard(pool))]
    pools.write_tar(shard(pool), [*contents, ("f" * 32 + ".jpg", b"stranger")])
    reindex(pool)


def drop_member(pool: Pool) -> None:
    contents = [(m.name, shard(pool).read_bytes()[m.offset : m.offset + m.size]) for m in members(shard(pool))]
    pools.write_tar(shard(pool), contents[:-1])
    reindex(pool)


def other_picture(pool: Pool) -> None:
    pools.flip_byte(shard(pool), image_in(shard(pool)) + 30)
    reindex(pool)


def reindex(pool: Pool) -> None:
    path = shard(pool).parent / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0] |= {"bytes": shard(pool).stat().st_size, "sha256": file_sha256(shard(pool))}
    path.write_text(json.dumps(index))


def lose_lines(pool: Pool) -> None:
    with pools.claim(pool, {"shards": pool.snapshot("shards").schema}) as run:
        run.replace_all("shards", pool.snapshot("shards").files[:1])


def swap_metadata(pool: Pool) -> None:
    folder = shard(pool).parent
    first, second = (folder / f"0000{n}.parquet" for n in (0, 1))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def forget_index(pool: Pool) -> None:
    (shard(pool).parent / "index.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda pool: pools.flip_byte(shard(pool), image_in(shard(pool)) + 30), "00000.tar: its bytes have another sha256"),
        (lambda pool: pools.flip_byte(shard(pool).with_suffix(".parquet"), 9), "00000.parquet: its bytes have another sha256"),
        (lambda pool: os.remove(shard(pool)), "00000.tar is missing"),
        (lambda pool: os.truncate(shard(pool), 1024), "1,024 bytes, not"),
        (lambda pool: shard(pool).with_name("00009.tar").write_bytes(b""), "00009.tar is in no index"),
        (lambda pool: (shard(pool).parent / "sizes.json").write_text("{}"), "sizes.json does not say"),
        (lambda pool: (shard(pool).parent / "index.json").write_text("{"), "index.json is damaged"),
        (forget_index, "there is no shards/usual/index.json"),
        (add_member, f"member {'f' * 32}.jpg is in no line of table shards"),
        (drop_member, ".json is missing"),
        (other_picture, "are not the fetched ones"),
        (lose_lines, "in table shards, 4 samples in index.json"),
        (swap_metadata, "bytes, not"),
    ],
)
def test_damaged_shards(packed: Pool, damage: Damage, says: str) -> None:
    damage(packed)
    found = next(check for check in verify(packed).checks if check.name == "shards")
    assert any(says in offender for offender in found.offenders), found.offenders


def test_a_pack_that_was_stopped_before_its_commit_is_told_and_harms_nothing(packed: Pool) -> None:
    with pools.claim(packed, {"shards": packed.snapshot("shards").schema}) as run:
        run.replace_all("shards", [])
    report = verify(packed)
    report.require()
    assert "shards/usual: packing was stopped before its last step" in report.text()
    with pools.claim(packed, {}) as run:
        pools.pack(packed, run, "usual", pools.PackSettings(shard_samples=3))
    assert verify(packed).ok and "stopped" not in verify(packed).text()


def test_a_kept_row_in_no_shard_and_a_packed_row_that_is_not_kept(packed: Pool) -> None:
    change(packed, "decisions_usual", "keep", [False, True, True, False, False, False])
    change(packed, "decisions_usual", "reason", ["caption_short", None, None, None, "caption_short", "clip_score_low"])
    path = packed.path / "subsets" / "usual.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decisions_version": packed.snapshot("decisions_usual").version}))
    found = next(check for check in verify(packed).checks if check.name == "shards")
    assert "usual: part 0, row 1 is kept and in no shard" in found.offenders
    assert "usual: part 0, row 0 is in a shard and not kept" in found.offenders


def test_shards_of_an_earlier_outcome(packed: Pool) -> None:
    path = packed.path / "subsets" / "usual.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "1" * 64}))
    assert "was packed from an earlier outcome" in broken(packed)["shards"]


# -- the report


def test_the_report_names_the_first_offender_and_how_many_more() -> None:
    check = Check("images", "promise")
    for number in range(9):
        check.require(number == 0, f"offender {number}")
    report = VerifyReport((Check("fine", "promise"), check), deep=True)
    assert (check.checked, check.failures, check.offenders[0]) == (9, 8, "offender 1")
    assert "and 3 more" in report.text()
    with pytest.raises(AccountingError, match="images: offender 1"):
        report.require()
