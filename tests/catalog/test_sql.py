"""Questions and answers: formats that can be read back, errors that help, text that cannot drive a terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog import sql
from curate.errors import UsageError
from curate.store import Pool

NASTY = [
    "plain",
    'quote " and, comma',
    "line\nbreak",
    "\x1b[31mred",
    "\u202eright to left",
    "=HYPERLINK(1)",
    "",
    None,
    "日本語",
    "e\u0301",
    "\x9b2J",
]


def test_query_answers_from_the_joined_view(read_only_pool: Pool) -> None:
    answer = sql.query(read_only_pool, "SELECT outcome, count(*) AS n FROM samples GROUP BY ALL ORDER BY outcome")
    assert answer.to_pydict() == {"outcome": ["dropped", "failed", "kept"], "n": [6, 2, 4]}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT captoin FROM samples", "did you mean 'caption'"),
        ("SELECT * FROM sample", "did you mean 'samples'"),
        ("SELECT s.captoin FROM samples s", "did you mean 'caption'"),
        ("SELECT xyzzy FROM samples", "DESCRIBE samples"),
        ("SELEC 1", "SQL: "),
        ("SELECT 'a'::INTEGER", "SQL: "),
        ("DELETE FROM samples", "one SELECT"),
    ],
)
def test_errors_are_one_line_that_helps(read_only_pool: Pool, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        sql.query(read_only_pool, text)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_clip_score_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="score the pool"):
        sql.query(Pool.create(tmp_path / "pool"), "SELECT clip_score FROM samples")


@pytest.mark.parametrize("form", ["table", "json"])
def test_nothing_on_a_terminal_can_drive_it(form: sql.Format) -> None:
    text = sql.render(pa.table({"x\x1b": pa.array(NASTY)}), form)
    assert not {"\x1b", "\u202e", "\x9b", "\r"} & set(text)
    assert "日本語" in text
    assert "\\x1b" in text or "\\u001b" in text


def test_csv_and_json_and_parquet_read_back_equal(tmp_path: Path) -> None:
    answer = pa.table({"text": pa.array(NASTY), "n": pa.array(range(len(NASTY))), "list": pa.array([["a", None]] * len(NASTY))})
    lines = list(csv.reader(io.StringIO(sql.render(answer, "csv"), newline="")))
    assert [line[0] or None for line in lines[1:]] == [value or None for value in NASTY]
    assert json.loads(lines[1][2]) == ["a", None]
    assert json.loads(sql.render(answer, "json")) == answer.to_pylist()
    sql.write(answer, tmp_path / "a.parquet", "parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == answer.to_pylist()


def test_json_has_no_nan_and_sums_are_numbers(read_only_pool: Pool) -> None:
    answer = sql.query(read_only_pool, "SELECT 'nan'::DOUBLE AS a, sum(row) AS b, [1.5::DOUBLE, 'inf'] AS c, '\\xAA'::BLOB AS d FROM rows")
    assert json.loads(sql.render(answer, "json")) == [{"a": None, "b": 30, "c": [1.5, None], "d": "aa"}]
    assert sql.render(answer, "csv").splitlines()[1].split(",")[1] == "30"


def test_table_aligns_wide_text_and_tells_what_it_hides() -> None:
    answer = pa.table({"name": ["日本", "a"] * 3, "n": [1, 1000] * 3})
    lines = sql.render(answer, "table", lines=2).splitlines()
    assert lines[0] == "name     n"
    assert lines[2:4] == ["日本     1", "a     1000"]
    assert "4 more lines" in lines[4]


def test_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    answer = pa.table({"a": [1]})
    with pytest.raises(UsageError, match="did you mean 'json'"):
        sql.render(answer, "jsn")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give a file"):
        sql.render(answer, "parquet")
    with pytest.raises(UsageError, match="cannot write"):
        sql.write(answer, tmp_path / "missing" / "a.csv", "csv")


def test_csv_says_what_it_has_no_type_for(read_only_pool: Pool) -> None:
    answer = sql.query(read_only_pool, "SELECT INTERVAL 1 day AS i")
    assert sql.render(answer, "csv").splitlines()[1] == '"[0, 1, 0]"'
