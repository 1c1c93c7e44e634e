"""Input lists in a bucket: found by glob and folder, pinned to the version that was found, the same rows as from a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curate.errors import InputError
from curate.objects import place
from curate.plan.settings import InputSettings
from curate.plan.sources import find_files
from tests.conftest import Said
from tests.plan import lists
from tests.s3.server import Proxy

TEXT = "".join(f"http://a.example/{number}.jpg\n" for number in range(500))


def put(address: str, text: str) -> None:
    place(address).write_text(text)


def test_lists_in_a_bucket_give_the_rows_of_lists_on_a_disk(s3: Proxy, prefix: str, tmp_path: Path) -> None:
    for root in (f"{prefix}/in", str(tmp_path / "in")):
        Path(tmp_path / "in" / "deep").mkdir(parents=True, exist_ok=True)
        put(f"{root}/one.txt", TEXT[:5000])
        put(f"{root}/deep/two.txt", TEXT[5000:])
        put(f"{root}/note.md", "no list")
    far, _ = lists.planned(tmp_path / "far", f"{prefix}/in")
    near, _ = lists.planned(tmp_path / "near", str(tmp_path / "in"))
    assert far.snapshot("rows").read().equals(near.snapshot("rows").read())
    globbed = find_files(InputSettings(path=f"{prefix}/in/*.txt"))
    assert [file.name for file in globbed] == ["one.txt"] and globbed[0].version.strip('"')


def test_a_list_that_is_replaced_while_it_is_read_is_refused(s3: Proxy, prefix: str) -> None:
    put(f"{prefix}/list.txt", TEXT)
    (file,) = find_files(InputSettings(path=f"{prefix}/list.txt"))
    put(f"{prefix}/list.txt", TEXT.replace("jpg", "png"))
    with pytest.raises(InputError, match="replaced while it was read"):
        file.fingerprint()


def test_a_list_that_is_not_there_offers_the_nearest(s3: Proxy, prefix: str, curate: Callable[..., Said], tmp_path: Path) -> None:
    put(f"{prefix}/list.txt", TEXT)
    said = curate("run", "ingest", "--pool", tmp_path / "pool", f"input.path={prefix}/lisst.txt")
    assert said.code == 2 and "did you mean 'list.txt'" in said.err
