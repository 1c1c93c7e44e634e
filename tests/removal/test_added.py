"""Removals in a pool with a further list: its rows point into tars of earlier parts, which only these parts write."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import curate as library
from curate.catalog.borrowed import Borrowed
from curate.media.tar import read as read_tar
from curate.store import Pool
from tests.removal import scan
from tests.removal.conftest import Served
from tests.removal.handmade import BORROWING
from tests.removal.questions import asks_nothing, pairs, rows


def stored(pool: Path) -> dict[str, str]:
    """sample_id -> hash of the bytes that the pool stores for it."""
    return {name: image for name, (image, _) in scan.stored(pool).items()}


def take(pool: Path, entry: str, curate: Callable) -> None:
    (pool.parent / "request.txt").write_text(entry)
    said = curate("takedown", pool, "--list", pool.parent / "request.txt", "--yes")
    assert said.code == 0, said.out + said.err


def is_whole(pool: Path, expected: dict[str, str], curate: Callable) -> None:
    """Every row that stays has the bytes that it had, and the pool verifies."""
    assert stored(pool) == expected
    said = curate("verify", pool)
    assert said.code == 0, said.out


def test_each_way_to_withdraw_a_row_whose_image_lies_in_another_part(added: Path, served: Served, tmp_path: Path, curate: Callable) -> None:
    pool = Path(shutil.copytree(added, tmp_path / "pool"))
    assert Borrowed.of(Pool.open(pool).snapshot("fetched")).places
    owned, whole, guest, *_ = pairs(pool, "a.keep OR b.keep")
    hidden = {name: scan.secret(pool, pair["owner"]) for name, pair in (("owned", owned), ("whole", whole))}
    expected = stored(pool)

    take(pool, owned["owner"], curate)  # the row of the further list goes on using the image, under its own name
    expected.pop(owned["owner"])
    is_whole(pool, expected, curate)
    place = rows(pool, f"SELECT * FROM samples WHERE sample_id = '{owned['guest']}'")[0]["tar_file"]
    assert place.startswith(f"tars/{owned['part']:05d}-") and place != owned["tar_file"] and not (pool / owned["tar_file"]).exists()
    members = dict(read_tar(pool / place))
    assert members[f"{owned['guest']}.jpg"] == hidden["owned"].image and not [name for name in members if owned["owner"] in name]
    assert members[f"{owned['guest']}.txt"].startswith(b"told otherwise")

    take(pool, whole["url"], curate)  # both rows, and the image
    for name in ("owner", "guest"):
        expected.pop(whole[name])
    is_whole(pool, expected, curate)
    assert scan.places(pool, hidden["whole"]) == []

    take(pool, guest["guest"], curate)  # the image stays for its owner
    expected.pop(guest["guest"])
    is_whole(pool, expected, curate)

    take(pool, owned["guest"], curate)  # its last user, a row of another part than its tar's
    expected.pop(owned["guest"])
    is_whole(pool, expected, curate)
    assert scan.places(pool, hidden["owned"]) == []
    asks_nothing(pool, served, curate)
    assert curate("takedown", pool, "--prove").code == 0


def test_purge_deletes_images_that_no_row_of_any_part_needs(added: Path, served: Served, tmp_path: Path, curate: Callable) -> None:
    pool = Path(shutil.copytree(added, tmp_path / "pool"))
    both, one = pairs(pool, "NOT a.keep AND NOT b.keep"), pairs(pool, "a.keep != b.keep")
    assert both, "the further list should hold images that are dropped"
    expected = stored(pool)
    said = curate("purge", pool, "--where", "outcome = 'dropped' AND tar_file IS NOT NULL", "--yes")
    assert said.code == 0, said.err
    left = stored(pool)
    for pair in both:
        assert pair["owner"] not in left and pair["guest"] not in left
        assert not [path for path in (pool / "tars").iterdir() if pair["image_sha256"] in members_of(path)]
    for pair in one:
        assert pair["owner"] in left and pair["guest"] in left
    is_whole(pool, {name: image for name, image in expected.items() if name in left}, curate)
    kept = {line["sample_id"] for line in rows(pool, "SELECT sample_id FROM samples WHERE keep")}
    assert kept <= left.keys()
    asks_nothing(pool, served, curate)


def members_of(tar: Path) -> set[str]:
    """sha256 of every member."""
    return {hashlib.sha256(content).hexdigest() for _, content in read_tar(tar)}


def test_who_leaves_who_stays_and_who_is_not_touched(borrowing_pool: Path, tmp_path: Path) -> None:
    """Images of a part none of whose rows leaves, of a row that is refused now, and of rows with another outcome elsewhere."""
    pool = Path(shutil.copytree(borrowing_pool, tmp_path / "pool"))
    opened, captions = library.open(pool), {row.sample_id: row.caption for part in BORROWING for row in part}
    expected = by_caption(pool, captions)

    def leaves(*gone: str) -> None:
        for caption in gone:
            del expected[caption]
        assert by_caption(pool, captions) == expected
        opened.verify().require()

    untouched = {path.name for path in pool.rglob("00002-*")}
    for caption in ("of an image whose own row is refused", "in a part that nothing happens to", "alone with its image"):
        name = next(name for name, said in captions.items() if said == caption)
        opened.takedown(where=f"sample_id = '{name}'", only_named=True).proof.require()
        leaves(caption)
    hidden = BORROWING[1][1].sample_id  # the refused row whose name the image had
    assert not [name for path in (pool / "tars").glob("00001-*") for name, _ in read_tar(path) if name.startswith(hidden)]
    assert untouched <= {path.name for path in pool.rglob("00002-*")}
    report = opened.purge(where="outcome = 'dropped' AND tar_file IS NOT NULL")
    assert (report.outline.rows, report.outline.spared) == (2, 1)  # the third has an image that a kept row uses
    leaves("does not fit its image", "does not fit it either")
    opened.takedown(where="true").proof.require()
    assert not list((pool / "tars").iterdir()) and not by_caption(pool, captions)
    opened.verify().require()


def by_caption(pool: Path, captions: dict[str, str]) -> dict[str, bytes]:
    """The bytes that are stored for each row, by the caption that it had."""
    found = {}
    for line in rows(pool, "SELECT sample_id, tar_file, tar_offset, tar_size FROM samples WHERE tar_file IS NOT NULL"):
        with (pool / line["tar_file"]).open("rb") as stream:
            stream.seek(line["tar_offset"])
            found[captions[line["sample_id"]]] = stream.read(line["tar_size"])
    return found
