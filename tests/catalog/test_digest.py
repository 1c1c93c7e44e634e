"""Digests: equal values give equal lines, any change of a value another, layout none."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.digest import ColumnDigest, _table_digests, digest
from curate.store import Pool, Snapshot
from tests.catalog import pools


def of(values: list[object], kind: pa.DataType, cuts: tuple[int, ...] = ()) -> str:
    column = ColumnDigest()
    edges = [0, *cuts, len(values)]
    for start, end in itertools.pairwise(edges):
        column.update(pa.chunked_array([pa.array(values[start:end], kind)]))
    return column.hexdigest()


CASES = [
    ([1, None, 3, 0], pa.int64()),
    (["a", "", None, "bc", "é"], pa.string()),
    ([b"\x00", None, b""], pa.binary()),
    ([1.5, None, float("nan"), 0.0], pa.float64()),
    ([True, None, False], pa.bool_()),
    ([["a"], [], None, ["b", None]], pa.list_(pa.string())),
    ([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}], pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())})),
]


@pytest.mark.parametrize(("values", "kind"), CASES)
def test_where_a_column_is_cut_does_not_matter(values: list[object], kind: pa.DataType) -> None:
    whole = of(values, kind)
    assert all(of(values, kind, (cut,)) == whole for cut in range(len(values) + 1))
    column = ColumnDigest()
    padded = pa.array([*values[-1:], *values, *values[:1]], kind)
    column.update(pa.chunked_array([padded.slice(1, len(values))]))
    assert column.hexdigest() == whole, "a slice is digested as what it shows"


@pytest.mark.parametrize(("values", "kind"), CASES)
def test_every_value_and_null_counts(values: list[object], kind: pa.DataType) -> None:
    seen = {of(values, kind)}
    for at in range(len(values)):
        seen.add(of([*values[:at], *values[at + 1 :]], kind))
        if values[at] is not None:
            seen.add(of([*values[:at], None, *values[at + 1 :]], kind))
    assert len(seen) == 1 + len(values) + sum(value is not None for value in values)


def test_shifted_text_is_another_column() -> None:
    assert of(["ab", "c"], pa.string()) != of(["a", "bc"], pa.string())
    assert of([["a"], ["b"]], pa.list_(pa.string())) != of([["a", "b"], []], pa.list_(pa.string()))
    assert of([-0.0], pa.float64()) == of([0.0], pa.float64())


def test_equal_pools_have_equal_digests(read_only_pool: Pool, tmp_path: Path) -> None:
    assert digest(pools.build(tmp_path / "twin")) == digest(read_only_pool)


def test_lineage_and_placement_do_not_count(pool: Pool) -> None:
    before = digest(pool)
    data = pool.snapshot("fetched").read(parts=[0])
    moved = data.set_column(data.schema.get_field_index("tar_offset"), "tar_offset", pa.array([9] * 6, pa.int64()))
    pools.replace_part(pool, "fetched", 0, moved, pool.snapshot("fetched").schema)
    assert digest(pool) == before


@pytest.mark.parametrize(
    ("table", "column", "value", "changed"),
    [
        ("rows", "caption", "other", {"content"}),
        ("rows", "source.similarity", 0.123, {"content"}),
        ("rows", "source.URL", None, {"content"}),
        ("fetched", "reason", "dns_timeout", {"content"}),
        ("scores_base", "clip_tiny", 0.123, {"scores"}),
        ("scores_base", "caption_language", "fr", {"scores"}),
        ("scores_base", "phash", 77, {"content"}),
        ("groups_pixels", "group_id", "h", {"content"}),
        ("decisions_usual", "keep", False, {"content"}),
    ],
)
def test_one_changed_value_changes_its_line(pool: Pool, table: str, column: str, value: object, changed: set[str]) -> None:
    before = digest(pool)
    schema = pool.snapshot(table).schema
    data = pool.snapshot(table).read(parts=[1])
    values = [value, *data[column].to_pylist()[1:]]
    broken = data.set_column(data.schema.get_field_index(column), column, pa.array(values, schema.field(column).type))
    pools.replace_part(pool, table, 1, broken, schema)
    after = digest(pool)
    assert {line for line in after if after[line] != before[line]} == changed


def test_file_layout_does_not_count(pool: Pool) -> None:
    before = digest(pool)
    for name in ("rows", "fetched", "scores_base"):
        path = Path(pool.snapshot(name).paths()[0])
        data = pq.read_table(path, partitioning=None)
        pq.write_table(data, path, row_group_size=2, use_dictionary=False, compression="none", version="1.0")
    assert digest(pool) == before


def test_a_column_that_no_row_has_changes_nothing(read_only_pool: Pool) -> None:
    now = read_only_pool.snapshot("rows")
    grown = Snapshot("rows", now.version, now.schema.append(pa.field("source.new", pa.string())), now.files, now.folder)
    assert list(_table_digests(grown, None)) == list(_table_digests(now, None))


def test_packed_bytes_and_their_order_count(pool: Pool) -> None:
    folder = pool.path / "shards" / "usual"
    folder.mkdir(parents=True)
    members = [("a.jpg", b"1"), ("a.txt", b"x"), ("b.jpg", b"2"), ("b.txt", b"y")]
    seen = {digest(pool)["content"]}
    for variant in (members, members[2:] + members[:2], [("a.jpg", b"3"), *members[1:]], members[:2]):
        pools.write_tar(folder / "00000.tar", variant)
        seen.add(digest(pool)["content"])
    assert len(seen) == 5
    pools.write_tar(folder / "00000.tar", members)
    os.utime(folder / "00000.tar", (1, 1))
    assert digest(pool)["content"] in seen
    assert digest(pool, policy="other")["content"] == digest(pool, policy="third")["content"]


def test_naming_a_policy_leaves_the_others_out(pool: Pool) -> None:
    before = digest(pool, "usual")
    data = pool.snapshot("decisions_usual").read(parts=[0])
    pools.replace_part(pool, "decisions_more", 0, data, pool.snapshot("decisions_usual").schema)
    assert digest(pool, "usual") == before
    assert digest(pool)["content"] != before["content"]
