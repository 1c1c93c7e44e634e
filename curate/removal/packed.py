"""Packed shards without the rows that leave: tars, their Parquet files, `index.json` and the table `shards`.

A shard keeps its number and the order of what stays; only shards that hold such a row are written anew, each in one
rename. The table is committed last, so that a removal that was killed finds in it which shards it must look at again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import schema as schemas
from curate.lease import Run
from curate.media.tar import TarWriter, members
from curate.shards.index import Shard, ShardIndex, read_index
from curate.shards.pack import TABLE
from curate.shards.subset import write_text
from curate.stage import PartFile
from curate.store import Pool, Snapshot, file_sha256, sync_file, sync_folder

Key = tuple[str, int]
"""Subset and shard number."""


@dataclass
class Repacking:
    """Takes `ids` out of every packed subset; `digests` says which digest a subset had and has."""

    pool: Pool
    run: Run
    ids: frozenset[str]
    digests: Mapping[str, tuple[str, str]]
    shards: dict[str, str] = field(default_factory=dict)  # path of each rewritten tar -> sha256 of the new one
    bytes_freed: int = 0
    _known_ranks: dict[int, dict[str, int]] = field(default_factory=dict)

    def write(self) -> None:
        """Rewrites what holds one of the ids, and the places of images that moved in part tars."""
        table, fetched = self.pool.snapshot(TABLE), self.pool.snapshot("fetched")
        found: dict[Key, int] = defaultdict(int)
        for file in table.files:
            data = self._read(table, file)
            for line in data.filter(self._gone(data)).to_pylist():
                found[line["subset"], line["shard"]] += 1
        members_of = {key: self._shard(*key) for key in sorted(found)}
        for name in sorted({path.parent.name for path in (self.pool.path / "shards").glob("*/index.json")}):
            self._index(name, sorted(number for subset, number in found if subset == name), found)
        if table.files:
            self.run.add(TABLE, schemas.table(TABLE))
            files = [self._table_file(table, file, members_of, fetched) for file in table.files]
            self.run.replace_all(TABLE, [file for file in files if file is not None])

    def _read(self, table: Snapshot, file: PartFile) -> pa.Table:
        return pq.read_table(table.folder / file.path, partitioning=None)

    def _gone(self, data: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(data["sample_id"], value_set=pa.array(sorted(self.ids), pa.string()))

    # -- one shard

    def _shard(self, subset: str, number: int) -> dict[str, tuple[int, int]] | None:
        """Writes a shard's two files without the ids; returns where each member lies now. None where nothing is packed as a copy."""
        folder = self.pool.path / "shards" / subset
        index = read_index(folder) if (folder / "index.json").exists() else None
        if index is None or number >= len(index.shards):
            return None
        tar, parquet = folder / index.shards[number].tar, folder / index.shards[number].parquet
        before = tar.stat().st_size
        where = self._write_tar(tar)
        data = pq.read_table(parquet, partitioning=None)
        data = data.filter(pc.invert(self._gone(data)))
        images = [f"{line['sample_id']}.{line['format']}" for line in data.select(["sample_id", "format"]).to_pylist()]
        at = data.schema.get_field_index("image_offset")
        data = data.set_column(at, data.schema.field(at), pa.array([where[name][0] for name in images], pa.int64()))
        temporary = self.pool.temporary(".parquet")
        pq.write_table(data.replace_schema_metadata(None).combine_chunks(), temporary, compression="zstd", store_schema=False)
        self._put(temporary, parquet)
        self.shards[f"shards/{subset}/{tar.name}"] = file_sha256(tar)
        self.bytes_freed += before - tar.stat().st_size
        return where

    def _write_tar(self, path: Path) -> dict[str, tuple[int, int]]:
        temporary, where = self.pool.temporary(".tar"), {}
        with path.open("rb") as stream, TarWriter(temporary) as tar:
            for member in members(path):
                if member.name.partition(".")[0] not in self.ids:
                    stream.seek(member.offset)
                    where[member.name] = tar.add(member.name, stream.read(member.size)), member.size
        self._put(temporary, path)
        return where

    def _put(self, temporary: Path, target: Path) -> None:
        sync_file(temporary)
        temporary.replace(target)
        sync_folder(target.parent)

    # -- index and table

    def _index(self, name: str, touched: list[int], found: Mapping[Key, int]) -> None:
        """Brings `index.json` and `sizes.json` in line with the files; the digest follows the subset's."""
        folder = self.pool.path / "shards" / name
        index = read_index(folder)
        shards = [_described(folder, shard) if number in touched else shard for number, shard in enumerate(index.shards)]
        had, has = self.digests.get(name, ("", ""))
        lost = sum(found[name, number] for number in touched)
        samples = sum(shard.samples for shard in shards) if index.mode == "copy" else self._lines(name) - lost
        size = sum(shard.bytes for shard in shards)
        new = ShardIndex(
            **{
                **dict(index),
                "shards": tuple(shards),
                "samples": samples,
                "bytes": size,
                "digest": has if index.digest == had else index.digest,
            }
        )
        if new == index:
            return
        if index.mode == "copy":
            sizes = ",\n".join(f' "{shard.tar}": {shard.samples}' for shard in shards)
            write_text(self.pool, folder / "sizes.json", f"{{\n{sizes}\n}}\n")
        (folder / "croissant.json").unlink(missing_ok=True)  # it tells the hashes of the files that were
        write_text(self.pool, folder / "index.json", new.model_dump_json(indent=1) + "\n")

    def _lines(self, name: str) -> int:
        return sum(file.rows for file in self.pool.snapshot(TABLE).files if file.basis.startswith(f"{name}:"))

    def _table_file(
        self, table: Snapshot, file: PartFile, members_of: Mapping[Key, dict[str, tuple[int, int]] | None], fetched: Snapshot
    ) -> PartFile | None:
        """One file of the table: without lines that leave, with the places that others have now; None when it is empty."""
        data = self._read(table, file)
        lines = data.filter(pc.invert(self._gone(data))).to_pylist()
        changed = len(lines) < data.num_rows
        for line in lines:
            where = members_of.get((line["subset"], line["shard"]))
            if where:
                line["members"] = [_moved(line["sample_id"], member, where) for member in line["members"]]
                changed = True
        changed |= self._follow(lines, file.part, fetched)
        if not changed:
            return file
        self._renumber(lines, members_of)
        schema = schemas.table(TABLE)
        return self.pool.write_part(TABLE, file.part, pa.Table.from_pylist(lines, schema=schema), file.basis) if lines else None

    def _renumber(self, lines: list[dict[str, Any]], members_of: Mapping[Key, dict[str, tuple[int, int]] | None]) -> None:
        """Positions in a shard count from 0 without a gap: the place of the sample's key among the tar's keys."""
        for line in lines:
            where = members_of.get((line["subset"], line["shard"]))
            if where:
                line["position"] = self._ranks(where)[line["sample_id"]]

    def _ranks(self, where: dict[str, tuple[int, int]]) -> dict[str, int]:
        key = id(where)
        if key not in self._known_ranks:
            self._known_ranks[key] = {name: at for at, name in enumerate(dict.fromkeys(member.partition(".")[0] for member in where))}
        return self._known_ranks[key]

    def _follow(self, lines: list[dict[str, Any]], part: int, fetched: Snapshot) -> bool:
        """Lines of a subset that is only an index point into part tars, which may have new names."""
        pointing = [line for line in lines if str(line["tar_file"]).startswith("tars/")]
        if not pointing or part not in fetched.by_part:
            return False
        now = fetched.read(["tar_file", "tar_offset", "tar_size"], [part]).to_pylist()
        changed = False
        for line in pointing:
            at = now[line["row"]]
            if at["tar_file"] is not None and (at["tar_file"], at["tar_offset"]) != (line["tar_file"], line["members"][0]["offset"]):
                line["tar_file"], changed = at["tar_file"], True
                line["members"][0] |= {"offset": at["tar_offset"], "size": at["tar_size"]}
        return changed


def _moved(sample_id: str, member: Mapping[str, Any], where: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    offset, size = where[f"{sample_id}.{member['extension']}"]
    return {"extension": member["extension"], "offset": offset, "size": size}


def _described(folder: Path, shard: Shard) -> Shard:
    """What the index says of a shard's files as they are."""
    tar, parquet = folder / shard.tar, folder / shard.parquet
    return Shard(
        tar=tar.name, samples=pq.read_metadata(parquet).num_rows, bytes=tar.stat().st_size, sha256=file_sha256(tar),
        parquet=parquet.name, parquet_bytes=parquet.stat().st_size, parquet_sha256=file_sha256(parquet),
    )  # fmt: skip
