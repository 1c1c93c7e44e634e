"""Checks of packed subsets: kept rows ↔ lines of table `shards` ↔ members of the tars, one to one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from curate.catalog.findings import Check
from curate.catalog.subsets import Subset, read_subset
from curate.catalog.views import connect
from curate.media.tar import Member, TarError, members
from curate.parquet import read_table
from curate.store import Pool, Snapshot, file_sha256

_BESIDE = {"index.json", "sizes.json", "croissant.json"}
_IMAGES = ("jpg", "png", "webp")


def check_shards(check: Check, pool: Pool, snapshots: Mapping[str, Snapshot], deep: bool) -> None:
    """Every packed subset is whole: files as in its index, members as in table `shards`, rows as the policy kept them."""
    folders = {path.parent.name: path.parent for path in sorted((pool.path / "shards").glob("*/index.json"))}
    for name, folder in folders.items():
        index = _index(folder, check)
        if index is not None:
            _check_files(folder, index, check, deep)
            if _is_committed(index, snapshots.get("shards")):
                _check_subset(pool, name, index, check, deep)
            else:
                check.notes.append(f"shards/{name}: packing was stopped before its last step; the same command, or  curate pack,  ends it")
    for name in _packed_subsets(snapshots) - set(folders):
        check.fail(f"table shards has lines of subset {name!r}, and there is no shards/{name}/index.json")


def _is_committed(index: Mapping[str, Any], table: Snapshot | None) -> bool:
    """Whether table `shards` knows of what lies in a folder: shards are moved into place, and then their lines are committed at once."""
    return not index["samples"] or (table is not None and any(file.basis == index.get("basis") for file in table.files))


def _index(folder: Path, check: Check) -> dict[str, Any] | None:
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text())
        index["shards"] = [dict(shard) for shard in index["shards"]]
    except (ValueError, KeyError, TypeError):
        check.fail(f"shards/{folder.name}/index.json is damaged")
        return None
    return index


def _packed_subsets(snapshots: Mapping[str, Snapshot]) -> set[str]:
    if "shards" not in snapshots:
        return set()
    return {str(name) for name in snapshots["shards"].read(columns=["subset"])["subset"].unique().to_pylist()}


# -- files


def _check_files(folder: Path, index: Mapping[str, Any], check: Check, deep: bool) -> None:
    listed = set(_BESIDE)
    for shard in index["shards"]:
        for name, size_bytes, sha256 in (
            (shard["tar"], shard["bytes"], shard["sha256"]),
            (shard["parquet"], shard["parquet_bytes"], shard["parquet_sha256"]),
        ):
            listed.add(name)
            check.require(*_file_offender(folder, name, size_bytes, sha256 if deep else None))
    for path in sorted(folder.iterdir()):
        check.require(path.name in listed, f"shards/{folder.name}/{path.name} is in no index")
    if index["mode"] == "copy":
        sizes = {shard["tar"]: shard["samples"] for shard in index["shards"]}
        check.require(_sizes(folder) == sizes, f"shards/{folder.name}/sizes.json does not say what index.json says")


def _file_offender(folder: Path, name: str, size_bytes: int, sha256: str | None) -> tuple[bool, str]:
    path, where = folder / name, f"shards/{folder.name}/{name}"
    if not path.is_file():
        return False, f"{where} is missing"
    if path.stat().st_size != size_bytes:
        return False, f"{where}: {path.stat().st_size:,} bytes, not {size_bytes:,}"
    return sha256 is None or file_sha256(path) == sha256, f"{where}: its bytes have another sha256 than index.json says"


def _sizes(folder: Path) -> object:
    try:
        return json.loads((folder / "sizes.json").read_text())
    except (OSError, ValueError):
        return None


# -- rows and members


def _check_subset(pool: Pool, name: str, index: Mapping[str, Any], check: Check, deep: bool) -> None:
    subset = read_subset(pool, name)
    if subset.found.get("digest") != index.get("digest"):
        check.fail(f"shards/{name} was packed from an earlier outcome of policy {name!r}: run  curate pack  again")
        return
    with connect(pool, name, pinned_versions(pool, subset)) as connection:
        lines = _count(connection, "SELECT count(*) FROM shards WHERE subset = $1", name)
        check.require(
            lines == index["samples"], f"shards/{name}: {lines:,} lines in table shards, {index['samples']:,} samples in index.json"
        )
        for sentence, sql in _MISMATCHES.items():
            for part, row in connection.execute(sql, [name]).fetchall():
                check.fail(f"{name}: part {part}, row {row} {sentence}")
        for number, shard in enumerate(index["shards"]):
            _check_members(pool, connection, name, number, shard, check, deep)


def pinned_versions(pool: Pool, subset: Subset) -> dict[str, int]:
    """What the subset was computed from, as far as it is still there; the newest tables for a subset that was withdrawn."""
    if subset.found.get("withdrawn"):
        return {}
    pinned = dict(subset.found.get("tables") or {})
    if subset.decisions_version is not None:
        pinned[f"decisions_{subset.name}"] = subset.decisions_version
    return {table: int(version) for table, version in pinned.items() if table in pool.tables() and version >= 0}


def _count(connection: duckdb.DuckDBPyConnection, sql: str, name: str) -> int:
    found = connection.execute(sql, [name]).fetchone()
    return int(found[0]) if found else 0


_MINE = "SELECT part, row, sample_id FROM shards WHERE subset = $1"
_MISMATCHES = {
    "is kept and in no shard": f"SELECT part, row FROM samples ANTI JOIN ({_MINE}) USING (part, row) WHERE keep ORDER BY ALL",
    "is in a shard and not kept": f"SELECT part, row FROM ({_MINE}) ANTI JOIN (FROM samples WHERE keep) USING (part, row) ORDER BY ALL",
    "is packed more than once": f"SELECT part, row FROM ({_MINE}) GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL",
    "is packed under another sample_id": f'SELECT part, row FROM ({_MINE}) p JOIN "rows" r USING (part, row) '
    "WHERE p.sample_id IS DISTINCT FROM r.sample_id ORDER BY ALL",
}


def _check_members(
    pool: Pool, connection: duckdb.DuckDBPyConnection, name: str, number: int, shard: Mapping[str, Any], check: Check, deep: bool
) -> None:
    """One tar against its lines, and its Parquet file against both."""
    tar_file = f"shards/{name}/{shard['tar']}"
    path = pool.path / tar_file
    sql = """SELECT s.sample_id, s.position, s.tar_file, s.members, coalesce(s.image_sha256, f.image_sha256) AS image_sha256
             FROM shards s JOIN fetched f USING (part, row) WHERE subset = $1 AND shard = $2 ORDER BY position"""
    lines: list[dict[str, Any]] = connection.sql(sql, params=[name, number]).to_arrow_table().to_pylist()
    positions = [line["position"] for line in lines]
    check.require(positions == list(range(shard["samples"])), f"{tar_file}: its lines do not count from 0 to {shard['samples'] - 1}")
    try:
        found = {member.name: member for member in members(path)}
    except (OSError, TarError) as error:
        check.fail(f"{tar_file} cannot be read: {error}")
        return
    wanted = {member.name: member for line in lines for member in _wanted(line)}
    _compare(tar_file, found, wanted, check)
    if deep:
        check.require_none(_other_bytes(path, tar_file, lines, found), len(lines))
    _check_metadata(pool.path / f"shards/{name}/{shard['parquet']}", f"shards/{name}/{shard['parquet']}", lines, check)


def _wanted(line: Mapping[str, Any]) -> Iterator[Member]:
    for member in line["members"] or ():
        yield Member(f"{line['sample_id']}.{member['extension']}", member["offset"], member["size"])


def _compare(tar_file: str, found: Mapping[str, Member], wanted: Mapping[str, Member], check: Check) -> None:
    for name, member in found.items():
        check.require(name in wanted, f"{tar_file}: member {name} is in no line of table shards")
        if name in wanted and wanted[name] != member:
            check.fail(f"{tar_file}: member {name} lies at {member.offset:,}, table shards says {wanted[name].offset:,}")
    check.require_none((f"{tar_file}: member {name} is missing" for name in wanted if name not in found), len(wanted))


def _other_bytes(path: Path, tar_file: str, lines: Sequence[Mapping[str, Any]], found: Mapping[str, Member]) -> Iterator[str]:
    """Samples whose image is not the one that was fetched, or that table shards says it became."""
    with path.open("rb") as stream:
        for line in lines:
            member = next((found[m.name] for m in _wanted(line) if m.name.endswith(_IMAGES) and m.name in found), None)
            if member is None:
                yield f"{tar_file}: {line['sample_id']} has no image"
                continue
            stream.seek(member.offset)
            if hashlib.sha256(stream.read(member.size)).hexdigest() != line["image_sha256"]:
                yield f"{tar_file}: the bytes of {member.name} are not the fetched ones"


def _check_metadata(path: Path, where: str, lines: Sequence[Mapping[str, Any]], check: Check) -> None:
    try:
        ids = read_table(path, ["sample_id"])["sample_id"].to_pylist()
    except (OSError, ValueError, KeyError) as error:
        check.fail(f"{where} cannot be read: {str(error).splitlines()[0]}")
        return
    check.require(ids == [line["sample_id"] for line in lines], f"{where}: other samples than its tar, or another order")
