"""Every physical record of a list comes out of its reader, in order, whatever is wrong with it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import InputError
from curate.plan import InputSettings
from curate.plan.block import Block
from curate.plan.delimited import read_delimited, read_txt
from curate.plan.lines import LINE_BYTES
from curate.plan.objects import read_json, read_jsonl
from curate.plan.readers import read_blocks
from curate.plan.sources import find_files
from tests.plan import lists

FIVE = lists.rows(5)


def values(blocks: list[Block], name: str) -> list[Any]:
    """One column over all blocks; None where a block lacks it."""
    return [value for block in blocks for value in (block.columns[name].to_pylist() if name in block.columns else [None] * block.rows)]


def broken(blocks: list[Block]) -> list[bool]:
    """Which records could not be read."""
    return [bool(flag) for block in blocks for flag in block.broken]


def read(path: str, **settings: Any) -> list[Block]:
    """All blocks of a one-file list; checks that rows are numbered without a gap."""
    (file,) = find_files(InputSettings(path=path, **settings))
    blocks = list(read_blocks(file, InputSettings(path=path, **settings)))
    starts = [block.first_row for block in blocks]
    assert starts == [sum(block.rows for block in blocks[:at]) for at in range(len(blocks))]
    return blocks


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format", ["txt", "csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_in_every_packing(tmp_path: Path, format: str, suffix: str) -> None:
    path = lists.write(tmp_path / f"list.{format}{suffix}", lists.packed(lists.encoded(FIVE, format), suffix))
    blocks = read(path)
    assert values(blocks, "url") == [row["url"] for row in FIVE]
    if format != "txt":
        assert values(blocks, "caption") == [row["caption"] for row in FIVE]
        assert [int(width) for width in values(blocks, "width")] == [row["width"] for row in FIVE]


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=30), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_well_formed_csv_comes_back_as_it_was_written(records: list[tuple[str, ...]], quoting: Any) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows([("url", "caption", "more"), *records])
    setting = InputSettings(path="list", header=True, delimiter=",")
    blocks = list(read_delimited(io.BytesIO(text.getvalue().encode()), "list", "csv", setting))
    assert not any(broken(blocks))
    for at, name in enumerate(("url", "caption", "more")):
        assert values(blocks, name) == [record[at] or None for record in records]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and b'"' not in line), max_size=30))
def test_every_line_of_any_bytes_is_a_record(lines: list[bytes]) -> None:
    head = b"url,caption\n"
    data = b"".join(line + b"\n" for line in lines)
    setting = InputSettings(path="list", header=True, delimiter=",")
    assert len(broken(list(read_delimited(io.BytesIO(head + data), "list", "csv", setting)))) == len(lines)
    assert len(broken(list(read_txt(io.BytesIO(b"first\n" + data), "list")))) == len(lines) + 1
    assert len(broken(list(read_jsonl(io.BytesIO(b"first\n" + data), "list")))) == len(lines) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(FIELD, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | FIELD), max_size=20))
def test_every_object_of_an_array_is_a_record(objects: list[dict[str, Any]]) -> None:
    blocks = list(read_json(io.BytesIO(json.dumps(objects).encode()), "list"))
    assert broken(blocks) == [False] * len(objects)
    blocks = list(read_jsonl(io.BytesIO("".join(json.dumps(one) + "\n" for one in objects).encode()), "list"))
    assert broken(blocks) == [False] * len(objects)


def test_a_stray_quote_costs_one_line_at_most(tmp_path: Path) -> None:
    lines = ["url,caption", 'http://a.com/1,"never closed', *(f"http://a.com/{at},plain" for at in range(2, 2000))]
    blocks = read(lists.write(tmp_path / "list.csv", "\n".join(lines) + "\n"))
    assert len(broken(blocks)) == 1999
    assert values(blocks, "url")[0] == "http://a.com/1"
    assert values(blocks, "url")[1:] == [f"http://a.com/{at}" for at in range(2, 2000)]


def test_quotes_that_begin_in_two_captions_do_not_join_their_rows(tmp_path: Path) -> None:
    blocks = read(lists.write(tmp_path / "list.tsv", '"big dog\thttp://a.com/1\nsmall dog\thttp://a.com/2\n"old dog\thttp://a.com/3\n'))
    assert values(blocks, "url") == ["http://a.com/1", "http://a.com/2", "http://a.com/3"]


def test_newlines_inside_quotes_stay_in_the_field(tmp_path: Path) -> None:
    body = "".join(f'http://a.com/{at},"two\r\nlines, ""{at}"""\r\n' for at in range(40_000))
    blocks = read(lists.write(tmp_path / "list.csv", "url,caption\r\n" + body))
    assert len(blocks) > 1
    assert values(blocks, "caption") == [f'two\r\nlines, "{at}"' for at in range(40_000)]


def test_ragged_undecodable_and_nul_lines_are_broken_records(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfurl,caption\nhttp://a.com/1,a\nhttp://a.com/2\nhttp://a.com/3,b,c\nhttp://a.com/4,caf\xe9\nhttp://a.com/5,\0\n\nhttp://a.com/6,z"
    blocks = read(lists.write(tmp_path / "list.csv", data))
    assert broken(blocks) == [False, True, True, True, True, True, False]
    assert values(blocks, "url") == ["http://a.com/1", None, None, None, None, None, "http://a.com/6"]


def test_an_endless_line_is_one_broken_record_and_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "list.csv").open("wb") as out:
        out.write(b"url,caption\nhttp://a.com/1,")
        for _ in range(LINE_BYTES * 3 >> 20):
            out.write(b"x" * (1 << 20))
        out.write(b"\nhttp://a.com/2,b\n")
    blocks = read(str(tmp_path / "list.csv"))
    assert broken(blocks) == [True, False]
    assert values(blocks, "url") == [None, "http://a.com/2"]


def test_broken_json_lines_are_broken_records(tmp_path: Path) -> None:
    damaged = ['{"url": ', "[1, 2]", "", '{"url": "\\ud800"}', "[" * 100_000, '{"n": 1' + "0" * 5000 + "}"]
    lines = ['{"url": "http://a.com/1"}', *damaged, '{"url": null}']
    blocks = read(lists.write(tmp_path / "list.jsonl", "\n".join(lines) + "\n"))
    assert broken(blocks) == [False, True, True, True, True, True, True, False]


def test_a_damaged_element_of_an_array_costs_itself_alone(tmp_path: Path) -> None:
    text = '[{"url": "http://a.com/1"}, {"url": "a,]}" oops ["x"]}, {"url": "http://a.com/3"}, 7, {"url": "http://a.com/5"'
    blocks = read(lists.write(tmp_path / "list.json", text))
    assert broken(blocks) == [False, True, False, True, True]
    assert values(blocks, "url") == ["http://a.com/1", None, "http://a.com/3", None, None]


def test_a_long_array_is_read_in_pieces(tmp_path: Path) -> None:
    found = lists.rows(30_000)
    blocks = read(lists.write(tmp_path / "list.json", lists.encoded(found, "json")))
    assert len(blocks) > 2
    assert values(blocks, "url") == [row["url"] for row in found]


def test_json_that_is_no_list_is_refused_by_name(tmp_path: Path) -> None:
    for text in ('{"url": {\n"0": "http://a.com"}}', '"text"', '[{"url": "http://a.com/1"}] [{"url": "http://a.com/2"}]'):
        with pytest.raises(InputError, match=r"list\.json: .*one object a line"):
            read(lists.write(tmp_path / "list.json", text))
    assert (
        values(read(lists.write(tmp_path / "list.json", '{"url": "http://a.com"}\n{"url": "http://b.com"}\n')), "url")[1] == "http://b.com"
    )


def test_a_damaged_row_group_still_counts_its_rows(tmp_path: Path) -> None:
    found = lists.rows(12)
    path = tmp_path / "list.parquet"
    pq.write_table(pa.Table.from_pylist(found), path, row_group_size=4, compression="gzip", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    blocks = read(str(path))
    assert broken(blocks) == [False] * 4 + [True] * 4 + [False] * 4
    assert values(blocks, "url")[8:] == [row["url"] for row in found[8:]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.parquet", b"PAR1 this is no parquet file PAR1"),
        ("list.csv.gz", b"plain text"),
        ("list.csv.gz", gzip.compress(lists.encoded(FIVE, "csv") * 1000)[:-200]),
        ("list.jsonl.zst", lists.packed(lists.encoded(lists.rows(3000), "jsonl"), ".zst")[:-100]),
        ("list.csv", "url,caption\nhttp://a.com,b\n".encode("utf-16")),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(InputError, match=name):
        read(lists.write(tmp_path / name, content))


def test_packed_files_of_several_members_are_read_whole(tmp_path: Path) -> None:
    for suffix in (".gz", ".zst"):
        halves = [lists.packed(lists.encoded(part, "txt"), suffix) for part in (FIVE[:2], FIVE[2:])]
        blocks = read(lists.write(tmp_path / f"list.txt{suffix}", b"".join(halves)))
        assert values(blocks, "url") == [row["url"] for row in FIVE]


def test_a_first_line_that_cannot_name_columns_is_refused(tmp_path: Path) -> None:
    for content in (b"\xe9url,caption\nhttp://a.com,x\n", b"url,caption\rhttp://a.com/1,b\r"):
        with pytest.raises(InputError, match=r"list\.csv: its first line"):
            read(lists.write(tmp_path / "list.csv", content))
    assert broken(read(lists.write(tmp_path / "list.csv", b"\xe9,x\nhttp://a.com,x\n"), header=False)) == [True, False]


def test_careless_quotes_are_read_leniently(tmp_path: Path) -> None:
    blocks = read(lists.write(tmp_path / "list.csv", 'url,caption\n"http://a.com","x" y\n"http://b.com","x ""z"""\n'))
    assert values(blocks, "url") == ["http://a.com", "http://b.com"]
    assert values(blocks, "caption") == ["x y", 'x "z"']


def test_columns_of_one_name_are_both_kept(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["http://a.com"]), pa.array(["b"]), pa.array([1])], ["url", "x", "x"])
    pq.write_table(table, tmp_path / "list.parquet")
    for path in (str(tmp_path / "list.parquet"), lists.write(tmp_path / "list.csv", "url,x,x\nhttp://a.com,b,1\n")):
        (row,) = lists.in_list_order(lists.planned(tmp_path / f"pool{path[-3:]}", path)[0])
        assert (row["source.x"], row["source.x_2"]) == ("b", 1)
