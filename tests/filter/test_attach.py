"""Scores from elsewhere: matched by key, refused where a match would be a guess, used by policies at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.errors import CurateError, IdentityError, InputError, UsageError
from tests.catalog.pools import build


@pytest.fixture
def pool(tmp_path: Path) -> library.Pool:
    """Twelve rows in two parts."""
    build(tmp_path / "pool")
    return library.open(tmp_path / "pool")


def urls(pool: library.Pool) -> list[str]:
    return [line["url"] for line in pool.sql("SELECT url FROM samples ORDER BY part, row").rows()]


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def column(pool: library.Pool, name: str) -> list[Any]:
    return [line[name] for line in pool.sql(f"SELECT {name} FROM samples ORDER BY part, row").rows()]


def test_each_row_takes_the_line_with_its_address(pool: library.Pool, tmp_path: Path) -> None:
    known = urls(pool)
    table = written(
        tmp_path / "t.parquet", url=[*known[::-1][:5], "http://elsewhere.example/x", None], punsafe=[0.5, 0.4, 0.3, 0.2, 0.1, 9.0, 8.0]
    )
    report = pool.attach(table, on="url", name="safety")
    assert (report.rows, report.matched, report.listed, report.unused, report.without_key) == (12, 5, 6, 1, 1)
    assert column(pool, "punsafe") == [None] * 7 + [0.1, 0.2, 0.3, 0.4, 0.5]
    pool.verify().require()


def test_an_address_is_compared_as_the_pool_spells_it(pool: library.Pool, tmp_path: Path) -> None:
    odd = urls(pool)[0].replace("http://a.example/", "http://a.example:80/") + "#top"
    assert pool.attach(written(tmp_path / "t.parquet", url=[odd], s=[1.5]), on="url", name="odd").matched == 1


@pytest.mark.parametrize("key", ["url_id", "sample_id", "sha256"])
def test_other_keys(pool: library.Pool, tmp_path: Path, key: str) -> None:
    found = pool.sql(f"SELECT DISTINCT {key} AS k FROM samples WHERE {key} IS NOT NULL ORDER BY 1").rows()
    table = written(tmp_path / "t.parquet", k=[line["k"].upper() for line in found], number=list(range(len(found))))
    report = pool.attach(table, on=key, name="other", key_column="k")
    assert report.unused == 0 and report.matched == sum(value is not None for value in column(pool, "number")) >= len(found) > 3


def test_a_policy_uses_it_at_once_and_nan_decides_nothing(pool: library.Pool, tmp_path: Path) -> None:
    scores = [math.nan, *np.linspace(0, 1, 11)]
    pool.attach(written(tmp_path / "t.parquet", url=urls(pool), dfn=scores), on="url", name="dfn")
    report = pool.filter(where="dfn > 0.5", name="by_dfn")
    kept = pool.sql("SELECT row, part, dfn FROM samples WHERE keep", policy="by_dfn").rows()
    assert report.subset.kept == len(kept) > 0 and all(line["dfn"] > 0.5 for line in kept)


def test_columns_are_chosen_and_renamed(pool: library.Pool, tmp_path: Path) -> None:
    table = written(tmp_path / "t.parquet", url=urls(pool), caption=["new"] * 12, a=pa.array(range(12), pa.uint16()), b=[1] * 12)
    report = pool.attach(table, on="url", name="recap", columns=["recaption=caption", "a"])
    assert report.columns == ("recaption", "a") and column(pool, "recaption") == ["new"] * 12 and column(pool, "a") == list(range(12))


def test_a_newer_table_replaces_the_older_and_may_have_more(pool: library.Pool, tmp_path: Path) -> None:
    known = urls(pool)
    pool.attach(written(tmp_path / "a.parquet", url=known[:2], s=[1.0, 2.0]), on="url", name="mine")
    before = pool.digest()
    assert pool.attach(tmp_path / "a.parquet", on="url", name="mine").matched == 2 and pool.digest() == before
    pool.attach(written(tmp_path / "b.parquet", url=known[1:3], s=[5.0, 6.0], t=["x", "y"]), on="url", name="mine")
    assert column(pool, "s")[:4] == [None, 5.0, 6.0, None] and column(pool, "t")[:4] == [None, "x", "y", None]
    pool.verify().require()


def test_a_folder_of_files_is_one_table(pool: library.Pool, tmp_path: Path) -> None:
    known = urls(pool)
    (tmp_path / "t").mkdir()
    for number in range(3):
        written(tmp_path / "t" / f"{number}.parquet", url=known[number * 4 : number * 4 + 4], s=[float(number)] * 4)
    assert pool.attach(tmp_path / "t", on="url", name="many").matched == 12
    assert column(pool, "s") == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_what_would_be_a_guess_is_refused(pool: library.Pool, tmp_path: Path) -> None:
    known = urls(pool)

    def refused(
        error: type[CurateError], told: str, on: str = "url", name: str = "x", more: dict[str, Any] | None = None, **columns: Any
    ) -> None:
        with pytest.raises(error, match=told) as found:
            pool.attach(written(tmp_path / "t.parquet", **columns), on=on, name=name, **(more or {}))
        assert "\n" not in str(found.value)

    refused(InputError, "one address stands 2 times", url=[known[0], known[1], known[0] + "#a"], s=[1, 2, 3])
    refused(InputError, "'0+' stands 3 times", on="url_id", url_id=["0" * 32] * 3, s=[1, 2, 3])
    refused(UsageError, "no column 'url' to match by; did you mean 'URL'", URL=known, s=[1] * 12)
    refused(UsageError, "no column 'scor'; did you mean 'score'", more={"columns": ["scor"]}, url=known, score=[1] * 12)
    refused(UsageError, "the pool has a column 'caption' already: .*new_name=caption", url=known, caption=["a"] * 12)
    refused(UsageError, "the pool has a column 'Part' already", url=known, Part=[1] * 12)
    refused(UsageError, r"no row of the pool has a url_id of this table.*for example", on="url_id", url_id=["f" * 32], s=[1])
    refused(UsageError, "the pool's lists had no column uid", on="uid", uid=["1"], s=[1])
    refused(IdentityError, "scores_base was written by a scorer", name="base", url=known, s=[1] * 12)
    assert "scores_x" not in pool._store.tables()
    pool.attach(written(tmp_path / "t.parquet", url=known, s=[1] * 12), on="url", name="x")
    refused(IdentityError, r"column 's' \(int64\) is string in this table", url=known, s=["a"] * 12)
    refused(IdentityError, r"column 's' \(int64\) is not in this table", url=known, t=["a"] * 12)


def test_at_the_terminal(pool: library.Pool, tmp_path: Path, curate: Callable[..., Any]) -> None:
    table = written(tmp_path / "t.parquet", url=urls(pool)[:6], punsafe=[0.5] * 6)
    said = curate("attach", pool.path, table, "--on", "url", "--as", "safety")
    assert said.code == 0 and "punsafe attached as scores_safety: 6 of 12 rows matched by url (50.0%)" in said.out
    (tmp_path / "t.csv").write_text("url,s\nhttp://a.example/,1\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    for path, told in {"t.csv": "not a Parquet file", "bad.parquet": "bad.parquet", "none.parquet": "none.parquet"}.items():
        said = curate("attach", pool.path, tmp_path / path, "--on", "url", "--as", "other")
        assert said.code == 2 and told in said.err and "Traceback" not in said.err
