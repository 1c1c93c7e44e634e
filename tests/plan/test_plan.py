"""A list becomes the table `rows`: each record once, in its part, the same on every machine and after every death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from curate.errors import REASONS, IdentityError, InputError
from curate.lease import claim
from curate.plan import InputSettings, PlanSettings, part_of, plan, sampled, survey, url_id
from curate.plan.parts import part_count
from curate.store import Pool
from tests.plan import lists

TROUBLE = [
    ("http://a.com/1.jpg", "one", None),
    ("http://a.com/1.jpg#fragment", "one", "duplicate_row"),
    ("http://a.com/1.jpg", "two", None),
    ("ftp://a.com/2.jpg", "two", "bad_scheme"),
    ("ftp://a.com/2.jpg", "two", "bad_scheme"),
    ("", "no address", "bad_url"),
    ("http://me:secret@a.com/3.jpg", "three", "bad_url"),
    ("http://a.com:80/1.jpg", "one", "duplicate_row"),
]


def file_names(pool: Pool) -> list[str]:
    """The part files of `rows`."""
    return [file.path for file in pool.snapshot("rows").files]


def test_every_row_has_its_reason(tmp_path: Path) -> None:
    lines = ["url,caption", *(f"{url},{text}" for url, text, _ in TROUBLE), "too,many,fields"]
    path = lists.write(tmp_path / "list.csv", "\n".join(lines) + "\n")
    pool, report = lists.planned(tmp_path / "pool", path, rows_per_part=3)
    found = lists.in_list_order(pool)
    assert [row["source_row"] for row in found] == list(range(9))
    assert [row["reason"] for row in found] == [*(reason for _, _, reason in TROUBLE), "input_unparseable"]
    assert report.reasons == Counter(row["reason"] or "ok" for row in found)
    assert set(report.reasons) - {"ok"} <= set(REASONS)
    assert (report.rows, report.listed, report.parts) == (9, 9, len(file_names(pool)))


def test_rows_stand_in_the_part_of_their_url_in_list_order(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.parquet", lists.encoded(lists.rows(200), "parquet"))
    pool, report = lists.planned(tmp_path / "pool", path, rows_per_part=40)
    rows = pool.snapshot("rows").read().to_pylist()
    assert report.parts == 5
    assert [(row["part"], row["row"]) for row in rows] == sorted((row["part"], row["row"]) for row in rows)
    assert all(row["part"] == part_of(url_id(row["url"]), 5) for row in rows)
    for part in range(5):
        mine = [row for row in rows if row["part"] == part]
        assert [row["row"] for row in mine] == list(range(len(mine)))
        assert [row["source_row"] for row in mine] == sorted(row["source_row"] for row in mine)


def test_input_columns_are_kept_with_their_types(tmp_path: Path) -> None:
    for format in ("csv", "tsv", "json", "jsonl", "parquet"):
        path = lists.write(tmp_path / f"list.{format}", lists.encoded(lists.rows(9), format))
        found = lists.in_list_order(lists.planned(tmp_path / format, path)[0])
        for row, wanted in zip(found, lists.rows(9), strict=True):
            assert {name: row[f"source.{name}"] for name in wanted} == wanted
            assert (row["url"], row["caption"]) == (wanted["url"], wanted["caption"])


def test_meanings_fill_their_columns(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.csv", "a,b,c,d\nhttp://a.com,words,cat,0f\n")
    columns = {"url": "a", "caption": "b", "label": "c", "sha256": "d"}
    (row,) = lists.in_list_order(lists.planned(tmp_path / "pool", path, columns=columns)[0])
    assert (row["url"], row["caption"], row["label"], row["source.sha256"]) == ("http://a.com", "words", "cat", "0f")


def test_the_table_opens_in_a_plain_delta_reader(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.csv", 'url,"a b",x.y\nhttp://a.com,1,2\n')
    pool, _ = lists.planned(tmp_path / "pool", path)
    (row,) = DeltaTable(str(pool.path / "tables/rows")).to_pyarrow_table().to_pylist()
    assert (row["source.a_b"], row["source.x.y"]) == (1, 2)


def test_the_same_list_gives_the_same_files_wherever_and_however_it_is_spooled(tmp_path: Path) -> None:
    found = lists.rows(3000)
    names = []
    for folder, spool_bytes in (("a", 1 << 20), ("b", 1 << 25), ("c", 1)):
        path = lists.write(tmp_path / folder / "list.jsonl", lists.encoded(found, "jsonl"))
        pool = Pool.create(tmp_path / folder / "pool")
        with claim(pool, {}) as run:
            plan(pool, run, InputSettings(path=path), PlanSettings(rows_per_part=500, spool_bytes=spool_bytes))
        names.append(file_names(pool))
        assert not list((pool.path / "tmp").iterdir())
    assert names[0] == names[1] == names[2]


def test_planning_again_changes_nothing(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.csv", lists.encoded(lists.rows(20), "csv"))
    pool, report = lists.planned(tmp_path / "pool", path, rows_per_part=5)
    files = sorted(pool.path.rglob("*.parquet"))
    _, again = lists.planned(tmp_path / "pool", path, rows_per_part=5)
    assert report.is_new and not again.is_new
    assert again == type(report)(**{**vars(report), "is_new": False})
    assert sorted(pool.path.rglob("*.parquet")) == files


def test_another_list_or_setting_is_refused_with_its_difference(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.csv", lists.encoded(lists.rows(20), "csv"))
    other = lists.write(tmp_path / "lists.csv", lists.encoded(lists.rows(20), "csv"))
    lists.planned(tmp_path / "pool", path)
    with pytest.raises(IdentityError, match=r"plan\.rows_per_part was 10000 and is 7"):
        lists.planned(tmp_path / "pool", path, rows_per_part=7)
    with pytest.raises(IdentityError, match=r"input\.sample was 1\.0 and is 0\.5"):
        lists.planned(tmp_path / "pool", path, sample=0.5)
    with pytest.raises(IdentityError, match=r"'lists\.csv' was not in its list; did you mean 'list\.csv'"):
        lists.planned(tmp_path / "pool", other)
    lists.write(tmp_path / "list.csv", lists.encoded(lists.rows(21), "csv"))
    with pytest.raises(IdentityError, match=r"'list\.csv' has changed"):
        lists.planned(tmp_path / "pool", path)


def test_smaller_samples_are_part_of_larger_ones(tmp_path: Path) -> None:
    found = lists.rows(5000)
    path = lists.write(tmp_path / "list.csv", lists.encoded(found, "csv"))
    urls = {}
    for sample in (0.01, 0.1):
        pool, report = lists.planned(tmp_path / str(sample), path, sample=sample)
        urls[sample] = {row["url"] for row in lists.in_list_order(pool)}
        assert (report.listed, report.rows) == (5000, len(urls[sample]))
        assert urls[sample] == {row["url"] for row in found if sampled(url_id(row["url"]), sample)}
    assert set() < urls[0.01] < urls[0.1]


def test_a_list_without_rows_is_refused(tmp_path: Path) -> None:
    for name, text in (("empty.csv", ""), ("header.csv", "url,caption\n"), ("empty.json", "[]"), ("empty.txt", "")):
        with pytest.raises(InputError, match="there are no rows"):
            lists.planned(tmp_path / "pool", lists.write(tmp_path / name, text))
    with pytest.raises(InputError, match="leaves none"):
        lists.planned(tmp_path / "pool", lists.write(tmp_path / "one.txt", "http://a.com\n"), sample=1e-9)


def test_a_file_that_lacks_the_others_columns_is_named(tmp_path: Path) -> None:
    lists.write(tmp_path / "in/a.csv", "url,caption\nhttp://a.com,x\n")
    lists.write(tmp_path / "in/b.csv", "url,captions\nhttp://b.com,x\n")
    with pytest.raises(InputError, match=r"b\.csv: there is no column 'caption' .*did you mean 'captions'"):
        lists.planned(tmp_path / "pool", str(tmp_path / "in"))


def test_a_list_without_one_readable_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of its 2 records can be read"):
        lists.planned(tmp_path / "pool", lists.write(tmp_path / "list.jsonl", "1\n2\n"))


def test_a_table_that_an_interrupted_plan_left_with_other_columns_is_refused(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    left = survey(InputSettings(path=lists.write(tmp_path / "left.csv", "url,x\nhttp://a.com,1\n")))
    with claim(pool, {"rows": left.schema}):
        pass
    with pytest.raises(IdentityError, match="interrupted plan"):
        lists.planned(pool.path, lists.write(tmp_path / "list.csv", "url,y\nhttp://a.com,1\n"))
    assert lists.planned(pool.path, str(tmp_path / "left.csv"))[1].rows == 1


PLAN_SLOWLY = """
import sys
from pathlib import Path
from tests.plan import lists
print("begun", flush=True)
lists.planned(Path(sys.argv[1]), sys.argv[2], rows_per_part=500)
"""


def test_a_plan_that_was_killed_is_made_again_to_the_same_files(tmp_path: Path) -> None:
    path = lists.write(tmp_path / "list.jsonl", lists.encoded(lists.rows(20_000), "jsonl"))
    undisturbed = file_names(lists.planned(tmp_path / "one", path, rows_per_part=500)[0])
    pool = Pool.create(tmp_path / "two")
    for delay_seconds in (0.2, 0.6):
        with subprocess.Popen([sys.executable, "-c", PLAN_SLOWLY, str(pool.path), path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            time.sleep(delay_seconds)
            os.kill(process.pid, signal.SIGKILL)
        assert file_names(pool) in ([], undisturbed)
    lists.planned(pool.path, path, rows_per_part=500)
    assert file_names(pool) == undisturbed
    assert not list((pool.path / "tmp").iterdir())


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (499, 1), (500, 2), (4_000, 16), (20_000, 16), (160_000, 16), (1_000_001, 101)])
def test_short_lists_are_cut_finer_so_that_every_worker_has_something_to_do(rows: int, parts: int) -> None:
    assert part_count(rows, 1.0, PlanSettings()) == parts
