"""Checks of the files of a pool: content hashes, images in part tars, embeddings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.catalog.borrowed import Borrowed, part_of
from curate.catalog.findings import Check
from curate.compact import Source, sources
from curate.media.tar import Member, TarError, members
from curate.objects import ObjectPath, read_span
from curate.parquet import read_schema, read_table
from curate.schema import KEY
from curate.store import Pool, Snapshot, file_sha256

_NAMED = re.compile(r"-([0-9a-f]{64})\.\w+$")
_TEXT_MEMBERS = (".txt", ".json")
_FOLDERS = ("tables", "compacted", "tars", "embeddings", "fitted", "models")


# -- hashes


def check_hashes(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot], deep: bool) -> None:
    """Every file that a table's version lists is there in full size, and every name that holds a sha256 holds the right one."""
    for name, snapshot in sorted(snapshots.items()):
        sizes = _sizes(snapshot)
        for file in snapshot.files:
            size_bytes = sizes.get(file.path, -1)
            check.require(size_bytes >= 0, f"tables/{name}/{file.path} is missing")
            check.require(size_bytes in (-1, file.size_bytes), f"tables/{name}/{file.path}: {size_bytes:,} bytes, not {file.size_bytes:,}")
    for path in _content_named(pool) if deep else ():
        found = _NAMED.search(path.name)
        if found:
            check.require(file_sha256(path) == found.group(1), f"{path.relative_to(pool.path)}: its bytes have another sha256")


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    """Bytes of the table's files that are there."""
    if isinstance(snapshot.folder, ObjectPath):  # one listing tells them all
        return {path.name: path.stat().st_size for path in snapshot.folder.iterdir() if path.is_file()}
    found = [(file.path, snapshot.folder / file.path) for file in snapshot.files]
    return {name: path.stat().st_size for name, path in found if path.exists()}


def _content_named(pool: Pool) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from (path for path in sorted((pool.path / folder).rglob("*")) if path.is_file())


# -- copies


def check_copies(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot]) -> None:
    """A compacted file that stands in for the files of some parts holds their rows, in order."""
    for _, snapshot in sorted(snapshots.items()):
        for source in sources(pool, snapshot):
            if len(source.members) > 1:
                name = f"{source.path.relative_to(pool.path)} does not hold the rows of the parts in its name: delete it"
                check.require(_holds_members(source, snapshot), name)


def _holds_members(source: Source, snapshot: Snapshot) -> bool:
    names = [name for name in KEY if snapshot.schema and name in snapshot.schema.names]
    own = [read_table(snapshot.folder / file.path, names) for file in source.members]
    held = read_table(source.path, names)
    return all(np.array_equal(held[name].to_numpy(), pa.concat_tables(own)[name].to_numpy()) for name in names)


# -- images


def check_images(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot], deep: bool) -> None:
    """Rows with an image ↔ images in part tars, one to one up to rows that share a URL, with the recorded sha256.

    Images of rows that a later, tighter prefilter refuses stay in their tar and are no offence. A tar is looked through
    with the part that wrote it; rows of other parts may use its images.
    """
    if "fetched" not in snapshots:
        return
    borrowed = Borrowed.of(snapshots["fetched"])
    for part, lines in _fetched_lines(snapshots):
        listed = {name: set(borrowed.places[name]) for name in borrowed.of_part(part)}
        tars = {name: _members_by_offset(pool.path / name, name, check) for name in listed}
        for line in lines:
            where = f"part {part}, row {line['row']}"
            if line["reason"] is not None:
                check.require(line["tar_file"] is None, f"{where}: has reason {line['reason']} and an image")
                continue
            offender = _image_offender(pool, line, tars, check, deep)
            check.require(not offender, f"{where}: {offender}")
            if not offender:
                listed.setdefault(line["tar_file"], set()).add(line["tar_offset"])
        refused = _refused(snapshots, part, lines)
        for tar_file in [name for name in tars if part_of(name) == part]:
            _check_unlisted(check, tar_file, tars[tar_file], listed.get(tar_file, set()), refused)


def _fetched_lines(snapshots: Mapping[str, Snapshot]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    columns = ["row", "reason", "image_sha256", "tar_file", "tar_offset", "tar_size"]
    for file in snapshots["fetched"].files:
        yield file.part, read_table(snapshots["fetched"].folder / file.path, columns).to_pylist()


def _refused(snapshots: Mapping[str, Snapshot], part: int, lines: list[dict[str, Any]]) -> set[str]:
    """Names under which rows that the prefilter refuses now may have been stored before."""
    rows = [line["row"] for line in lines if line["reason"] == "prefilter"]
    return set(snapshots["rows"].read(["sample_id"], [part])["sample_id"].take(rows).to_pylist()) if rows else set()


def _image_offender(pool: Pool, line: Mapping[str, Any], tars: dict[str, dict[int, Member]], check: Check, deep: bool) -> str:
    """What is wrong with the image of one row; empty when nothing is."""
    tar_file = line["tar_file"]
    if tar_file is None or line["tar_offset"] is None:
        return "has no reason and no image"
    path = pool.path / tar_file
    if tar_file not in tars:
        tars[tar_file] = _members_by_offset(path, tar_file, check)
    member = tars[tar_file].get(line["tar_offset"])
    if member is None or member.size != line["tar_size"] or member.name.endswith(_TEXT_MEMBERS):
        return f"{tar_file} has no image of {line['tar_size']} bytes at {line['tar_offset']}"
    if deep and _sha256_at(path, member) != line["image_sha256"]:
        return f"{tar_file}: the bytes of {member.name} have another sha256"
    return ""


def _members_by_offset(path: Path, name: str, check: Check) -> dict[int, Member]:
    try:
        return {member.offset: member for member in members(path)}
    except (OSError, TarError) as error:
        check.fail(f"{name} cannot be read: {error}")
        return {}


def _sha256_at(path: Path, member: Member) -> str:
    return hashlib.sha256(read_span(path, member.offset, member.size)).hexdigest()


def _check_unlisted(check: Check, tar_file: str, found: Mapping[int, Member], listed: set[int], refused: set[str]) -> None:
    for offset, member in found.items():
        if not member.name.endswith(_TEXT_MEMBERS):
            check.require(offset in listed or member.name.partition(".")[0] in refused, f"{tar_file}: {member.name} belongs to no row")


# -- embeddings


def check_embeddings(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot]) -> None:
    """Each embedding file has one float16 line per row of its part; lines of rows without a score are zero."""
    for name in sorted(snapshots):
        if name.startswith("scores_"):
            for file in snapshots[name].files:
                _check_part_embeddings(pool, snapshots[name].folder / file.path, f"{name}, part {file.part}", check)


def _check_part_embeddings(pool: Pool, path: Path, where: str, check: Check) -> None:
    names = [name for name in read_schema(path).names if name == "embedding_file" or name.startswith("clip_")]
    if "embedding_file" not in names:
        return
    data = read_table(path, names)
    for name in sorted(filter(None, data["embedding_file"].unique().to_pylist())):
        try:
            found = pool.array(name)
        except (OSError, ValueError, EOFError) as error:
            check.fail(f"{where}: {name} cannot be read: {error}")
            continue
        check.require(len(found) == data.num_rows, f"{where}: {name} has {len(found):,} lines for {data.num_rows:,} rows")
        check.require(found.dtype == np.float16, f"{where}: {name} holds {found.dtype}, not float16")
        if len(found) == data.num_rows:
            filled = [int(row) for row in _unscored(data) if np.any(found[row])]
            check.require(not filled, f"{where}: row {filled[0] if filled else ''} has an embedding and no score")


def _unscored(data: pa.Table) -> np.ndarray:
    """Rows in which every CLIP column is null."""
    null = np.ones(data.num_rows, bool)
    for name in data.column_names:
        if name.startswith("clip_"):
            null &= data[name].is_null().to_numpy()
    return np.flatnonzero(null)
