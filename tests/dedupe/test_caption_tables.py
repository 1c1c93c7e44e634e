"""The groups of captions that a real pool ends with: the same tables as those of pictures, beside them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import curate
from curate.dedupe import DedupeReport, DedupeSettings, dedupe, output_tables
from curate.errors import SettingsError, UsageError
from curate.lease import claim
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.dedupe.test_dedupe import run
from tests.score.pools import Row, jpeg, make_pool, noise

CAPTIONS = DedupeSettings(by="captions")
BEACH = "Two dogs are playing with a red ball on the beach"


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    def shown(seed: int, caption: str | None) -> Row:
        return Row(caption, jpeg(noise(seed)))

    return make_pool(
        tmp_path / "pool",
        [
            [shown(1, BEACH), Row(BEACH, None), shown(2, "two dogs are playing, with a red ball, ON THE BEACH!"), shown(3, None)],
            [shown(4, f"{BEACH} today"), shown(5, "!!!"), shown(6, "!!!"), shown(7, "A castle"), shown(8, "a  castle.")],
        ],
    )


def test_groups_stand_at_their_rows(pool: Pool) -> None:
    assert run(pool, CAPTIONS) == DedupeReport(8, 2, 5, 3, 2, 1, recomputed=True, by="captions")
    table = pool.snapshot("groups_captions").read().to_pydict()
    assert table["group_size"] == [3, None, 3, 1, 3, 1, 1, 2, 2]
    assert table["match"] == ["near_caption", None, "near_caption", None, "near_caption", None, None, "same_caption", "same_caption"]
    ids = pool.snapshot("rows").read(["sample_id"]).column("sample_id").to_pylist()
    first, second = min(ids[0], ids[2], ids[4]), min(ids[7], ids[8])
    assert table["group_id"] == [first, None, first, None, first, None, None, second, second]


def test_pairs_are_the_evidence(pool: Pool) -> None:
    run(pool, CAPTIONS)
    lines = pool.snapshot("pairs_captions").read().to_pylist()
    assert {(line["match"], line["distance"], round(line["similarity"], 4)) for line in lines} == {
        ("same_caption", None, 1.0),
        ("near_caption", None, round(45 / 51, 4)),  # runs of five characters: 45 of 49, and six more
    }
    assert {(line["part"], line["row"], line["other_part"], line["other_row"]) for line in lines} >= {(0, 0, 0, 2), (1, 3, 1, 4)}


def tables(pool: Pool, name: str) -> list[pa.Table]:
    """What was found, without what it was computed from."""
    return [pool.snapshot(f"{table}_{name}").read().drop_columns("basis") for table in ("groups", "pairs")]


def test_several_buckets_find_what_one_finds(pool: Pool) -> None:
    run(pool, CAPTIONS)
    other = DedupeSettings(by="captions", name="other")
    with claim(pool, output_tables(other)) as writer:
        dedupe(pool, writer, other, Crew(inline, 4))
    assert tables(pool, "other") == tables(pool, "captions")
    assert not list((pool.path / "tmp").iterdir())


def test_a_policy_elects_among_equal_captions(pool: Pool) -> None:
    run(pool, CAPTIONS)
    report = curate.open(pool.path).filter(where="true", name="unique", groups="captions")
    assert report.subset.dropped == {"duplicate": 3}


def test_both_kinds_stand_side_by_side(pool: Pool) -> None:
    run(pool, DedupeSettings(perceptual=False))
    first = run(pool, CAPTIONS)
    assert run(pool, CAPTIONS) == DedupeReport(**{**vars(first), "recomputed": False})
    assert {"groups_pixels", "pairs_pixels", "groups_captions", "pairs_captions"} <= set(pool.tables())
    opened = curate.open(pool.path)
    assert opened.sql("SELECT count(*) AS grouped FROM samples WHERE group_size > 1").rows() == [{"grouped": 0}]  # of pictures
    assert opened.takedown("part = 0 AND row = 0", near_copies=True, dry_run=True).outline.rows == 1  # another picture is no copy
    with pytest.raises(SettingsError, match="say groups= one of"):
        opened.filter(where="true", name="any")


def test_the_name_says_what_was_compared(pool: Pool) -> None:
    assert DedupeSettings(by="captions").name == DedupeSettings.model_validate({"name": "pixels", "by": "captions"}).name == "captions"
    assert DedupeSettings.model_validate({"name": "captions", "by": "pictures"}).name == "pixels"
    run(pool, DedupeSettings(by="captions", name="mine"))
    with pytest.raises(UsageError, match="groups_mine holds groups of captions: say name="):
        run(pool, DedupeSettings(name="mine", perceptual=False))


def test_hostile_captions(tmp_path: Path) -> None:
    long = "lorem ipsum dolor sit amet " * 4000
    said = ["", "\x00", "a", "\u202e\u202d", "👩‍👩‍👧‍👦", long, long + "x", "ａ", "שלום עולם", "e\u0301", "é"]
    pool = make_pool(tmp_path / "pool", [[Row(caption, jpeg(noise(at))) for at, caption in enumerate(said)]])
    run(pool, CAPTIONS)
    sizes = pool.snapshot("groups_captions").read().column("group_size").to_pylist()
    assert sizes == [1, 1, 2, 1, 1, 2, 2, 2, 1, 2, 2]


def test_a_table_of_an_earlier_version_gets_the_new_column(pool: Pool) -> None:
    earlier = output_tables(CAPTIONS)["pairs_captions"]
    with claim(pool, {"pairs_captions": earlier.remove(earlier.get_field_index("similarity"))}):
        pass
    run(pool, CAPTIONS)
    assert pool.snapshot("pairs_captions").read().column("similarity").null_count == 0
