"""Whatever type an input column has, its values arrive in a portable one without loss."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.plan.portable import TextShape, common_type, convert, portable_type, settled
from curate.schema import portable
from tests.plan import lists

INSTANT = pa.timestamp("us", "UTC")
DAY = datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("values", "kind", "after"),
    [
        (pa.array([1, 255], pa.uint8()), pa.int64(), [1, 255]),
        (pa.array([-3], pa.int16()), pa.int32(), [-3]),
        (pa.array([decimal.Decimal("1.50")], pa.decimal128(9, 2)), pa.float64(), [1.5]),
        (pa.array(np.array([0.5], np.float16)), pa.float32(), [0.5]),
        (pa.array([DAY.replace(tzinfo=None)], pa.timestamp("ns")), INSTANT, [DAY]),
        (pa.array([DAY.date()], pa.date32()), INSTANT, [DAY]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
        (pa.array([b"ab"], pa.binary(2)), pa.binary(), [b"ab"]),
        (pa.array([[1, 2]], pa.large_list(pa.uint16())), pa.list_(pa.int64()), [[1, 2]]),
        (pa.array([[1.5, 2]], pa.list_(pa.float32(), 2)), pa.list_(pa.float32()), [[1.5, 2.0]]),
        (pa.array([{"a": 1}], pa.struct([("a", pa.uint32())])), pa.struct([("a", pa.int64())]), [{"a": 1}]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), pa.string(), ['[["k", 1]]']),
        (pa.array([datetime.time(1, 2)], pa.time32("s")), pa.string(), ["01:02:00"]),
        (pa.nulls(2), pa.string(), [None, None]),
    ],
)
def test_types_become_portable(values: pa.Array, kind: pa.DataType, after: list[Any]) -> None:
    found = settled(portable_type(values.type))
    assert found == kind and portable(found)
    assert convert(values, found).to_pylist() == after


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.int64(), pa.string(), pa.string()),
        (pa.bool_(), pa.int64(), pa.string()),
        (pa.null(), pa.bool_(), pa.bool_()),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.list_(pa.struct([("a", pa.int64())])), pa.list_(pa.int64()), pa.string()),
    ],
)
def test_two_types_meet(one: pa.DataType, other: pa.DataType, common: pa.DataType) -> None:
    assert common_type(one, other) == common_type(other, one) == common


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-20", None], pa.int64()),
        (["1", "2.5", "1e-3", "nan"], pa.float64()),
        (["007", "8"], pa.string()),
        (["12345678901234567", "0.5"], pa.string()),
        (["17412398471239847123"], pa.string()),
        (["1", "many"], pa.string()),
        ([None, None], pa.null()),
        (["-"], pa.string()),
        (["+5", "1."], pa.string()),
    ],
)
def test_texts_become_numbers_only_without_loss(texts: list[str | None], kind: pa.DataType) -> None:
    whole = TextShape.of(pa.array(texts, pa.string()), TextShape())
    pieces = TextShape()
    for text in reversed(texts):
        pieces |= TextShape.of(pa.array([text], pa.string()), pieces)
    assert whole.type == pieces.type == kind
    converted = convert(pa.array(texts, pa.string()), settled(kind))
    assert converted.null_count == sum(text is None for text in texts)


def test_unsigned_numbers_beyond_a_signed_one_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    table = {"url": ["http://a.com/1"], "small": pa.array([7], pa.uint64()), "big": pa.array([2**64 - 1], pa.uint64())}
    pq.write_table(pa.table(table), path)
    (row,) = lists.in_list_order(lists.planned(tmp_path / "pool", str(path))[0])
    assert (row["source.small"], row["source.big"]) == (7, str(2**64 - 1))


def test_files_that_disagree_about_a_type_meet_in_one(tmp_path: Path) -> None:
    lists.write(tmp_path / "in/a.csv", "url,n,m\nhttp://a.com/1,1,x\n")
    lists.write(tmp_path / "in/b.jsonl", '{"url": "http://a.com/2", "n": 2.5, "m": 3}\n{"url": "http://a.com/3", "M": [1, {"a": null}]}\n')
    pq.write_table(pa.table({"URL": ["http://a.com/4"], "n": pa.array([4], pa.int8())}), tmp_path / "in/c.parquet")
    found = lists.in_list_order(lists.planned(tmp_path / "pool", str(tmp_path / "in"))[0])
    assert [row["source.n"] for row in found] == [1.0, 2.5, None, 4.0]
    assert [row["source.m"] for row in found] == ["x", "3", None, None]
    assert [row["source.M_2"] for row in found] == [None, None, '[1, {"a": null}]', None]


def test_texts_that_are_no_utf8_break_their_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    raw = pa.array([b"fine", b"\xff\xfe", b"good"], pa.binary())
    caption = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"url": [f"http://a.com/{at}" for at in range(3)], "caption": caption}), path)
    found = lists.in_list_order(lists.planned(tmp_path / "pool", str(path))[0])
    assert [row["reason"] for row in found] == [None, "input_unparseable", None]
    assert [row["caption"] for row in found] == ["fine", None, "good"]
    assert found[1]["url"] is None
