"""A path means files: one, a folder, a glob, several, local or behind any fsspec URL."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate.errors import InputError
from curate.plan import InputSettings
from curate.plan.sources import find_files
from tests.plan import lists


def names(path: str | tuple[str, ...], **settings: Any) -> list[str]:
    """Names of the files that a path means."""
    return [file.name for file in find_files(InputSettings(path=path, **settings))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Spark leaves it, with lists and other things."""
    others = ("_SUCCESS", ".hidden.csv", "_temporary/0/d.csv", "notes.md", "other/x.md")
    for name in ("b.csv", "a.CSV.gz", "deep/c.jsonl", "e.parquet.zst", *others):
        lists.write(tmp_path / name, "url\nhttp://a.com\n")
    return tmp_path


def test_a_folder_means_its_lists_in_order(folder: Path) -> None:
    assert names(str(folder)) == ["a.CSV.gz", "b.csv", "deep/c.jsonl", "e.parquet.zst"]


def test_a_glob_means_its_matches(folder: Path) -> None:
    assert names(f"{folder}/*.csv") == ["b.csv"]
    assert names(f"{folder}/**/*.jsonl") == ["deep/c.jsonl"]


def test_several_paths_keep_their_order(folder: Path) -> None:
    assert names((f"{folder}/deep/c.jsonl", f"{folder}/b.csv")) == ["deep/c.jsonl", "b.csv"]
    with pytest.raises(InputError, match="named twice"):
        names((f"{folder}/b.csv", str(folder)))


def test_brackets_in_a_real_name_are_no_glob(tmp_path: Path) -> None:
    assert names(lists.write(tmp_path / "list[1].csv", "url\n")) == ["list[1].csv"]


def test_a_set_format_takes_every_name(tmp_path: Path) -> None:
    lists.write(tmp_path / "part-00000", "http://a.com\n")
    assert names(str(tmp_path), format="txt") == ["part-00000"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("b.cvs", "did you mean 'b.csv'"),
        ("nothing/here.csv", "no such file"),
        ("*.tsv", "no such file"),
        ("notes.md", "unknown kind of list '.md'"),
        ("other", "no file in it ends in"),
    ],
)
def test_a_wrong_path_is_named(folder: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        names(f"{folder}/{path}")


def test_an_unknown_protocol_is_an_input_error() -> None:
    with pytest.raises(InputError, match="nosuch://bucket/list"):
        names("nosuch://bucket/list.csv")


def test_any_fsspec_filesystem_will_do() -> None:
    with fsspec.open("memory://lists/one.txt", "wb") as out:
        out.write(b"http://a.com/1\nhttp://a.com/2\n")
    (file,) = find_files(InputSettings(path="memory://lists"))
    assert file.name == "one.txt"
    with file.unpacked() as stream:
        assert stream.read().splitlines()[1] == b"http://a.com/2"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A real web server over a folder with one list."""
    lists.write(tmp_path / "list.txt.gz", lists.packed(b"http://a.com/1\n", ".gz"))
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_signed_web_address_shows_no_signature(web: str, tmp_path: Path) -> None:
    pool, report = lists.planned(tmp_path / "pool", f"{web}/list.txt.gz?signature=SECRET")
    assert report.rows == 1
    assert [row["source_file"] for row in lists.in_list_order(pool)] == ["list.txt.gz"]
    assert not [path for path in pool.path.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


def test_a_fingerprint_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    found = [lists.write(tmp_path / folder / "list.txt", text) for folder, text in (("a", "x"), ("b", "x"), ("c", "y"))]
    one, same, other = (find_files(InputSettings(path=path))[0].fingerprint() for path in found)
    assert one == same != other
