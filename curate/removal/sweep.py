"""What a removal deletes: files that its new ones replace, pages and leftovers that may show what left."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from curate.catalog.borrowed import Borrowed, part_of
from curate.compact import unused
from curate.media.tar import TarError, members
from curate.store import Pool, Snapshot, sync_folder

_ALIGNED = ("rows", "fetched", "decisions_", "scores_", "groups_")
_WHOLE = ("pairs_", "shards")  # their files hold rows of many parts


def delete_replaced(pool: Pool, parts: Collection[int], borrowed: Borrowed) -> None:
    """Deletes files of these parts, and of tables that know no parts, that the newest version of no table names.

    Older versions of the tables cannot be read in these parts from then on: that is the point. Copies of what was replaced
    go as well.
    """
    stems, used = {f"{part:05d}" for part in parts}, set[Path]()
    users = borrowed.with_users(parts)
    for name in pool.tables():
        snapshot = pool.snapshot(name)
        used.update(snapshot.folder / file.path for file in snapshot.files)
        used.update(pool.path / side for side in _side_files(snapshot, users))
    for path in _candidates(pool, stems):
        if path not in used:
            _delete(path)
    for path in unused(pool):
        _delete(path)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _side_files(snapshot: Snapshot, parts: Collection[int]) -> Iterator[str]:
    """Tars and embeddings that the newest files of these parts name."""
    column = {"fetched": "tar_file"}.get(snapshot.table, "embedding_file" if snapshot.table.startswith("scores_") else "")
    if snapshot.schema is None or column not in snapshot.schema.names:
        return
    for part in parts:
        if part in snapshot.by_part:
            yield from snapshot.read([column], [part])[column].drop_null().unique().to_pylist()


def _candidates(pool: Pool, stems: Collection[str]) -> Iterator[Path]:
    for name in pool.tables():
        for path in pool.table_folder(name).glob("*.parquet"):
            if name.startswith(_WHOLE) or (name.startswith(_ALIGNED) and path.name.split("-", 1)[0] in stems):
                yield path
    for folder in ("tars", "embeddings"):
        yield from (path for path in (pool.path / folder).rglob("*") if path.is_file() and path.name.split("-", 1)[0] in stems)


def delete_caches(pool: Pool) -> None:
    """Deletes the report page, which holds thumbnails, and what runs and queries left in tmp/; `curate report` makes the page anew."""
    shutil.rmtree(pool.path / "report", ignore_errors=True)
    for path in (pool.path / "tmp").glob("*"):
        if not path.name.startswith(f"{socket.gethostname()}.{os.getpid()}."):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def parts_with_strays(pool: Pool, hashes: Collection[str]) -> set[int]:
    """Parts whose tars hold one of these images under no row: stored before a tighter prefilter refused their rows.

    Headers are walked, and only images that no row names are read.
    """
    snapshot, found = pool.snapshot("fetched"), set[int]()
    if not hashes:
        return found
    borrowed = Borrowed.of(snapshot)
    for file in snapshot.files:
        data = snapshot.read(["tar_file", "tar_offset"], [file.part]).to_pylist()
        listed = {name: set(borrowed.places[name]) for name in borrowed.of_part(file.part)}
        for line in data:
            if line["tar_file"] is not None and part_of(line["tar_file"]) == file.part:
                listed.setdefault(line["tar_file"], set(borrowed.places.get(line["tar_file"], ()))).add(line["tar_offset"])
        if any(digest in hashes for name in sorted(listed) for digest in _unlisted(pool.path / name, listed[name])):
            found.add(file.part)
    return found


def _unlisted(path: Path, listed: Collection[int]) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            for member in members(path):
                if member.offset not in listed and not member.name.endswith((".txt", ".json")):
                    stream.seek(member.offset)
                    yield hashlib.sha256(stream.read(member.size)).hexdigest()
    except (OSError, TarError):  # `curate verify` says what is damaged
        return
