"""One part without the rows that leave: its tars, tables and embeddings, written anew beside the old ones.

Nothing is committed here. Equal inputs give equal file names, so a removal that was killed simply writes them again. What
was up to date stays so: the new files record that they were computed from each other, as if the phases had run on a pool
that never had these rows, and no other row is fetched or scored again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.media.tar import TarWriter, members
from curate.media.text import remove_controls
from curate.plan.prefilter import TABLE as PREFILTER
from curate.run import part_basis
from curate.stage import PartFile, fingerprint
from curate.store import Pool, Snapshot
from curate.suppress import emptied, withheld

IMAGES = ("tar_file", "tar_offset", "tar_size")
_INPUTS = {"fetched": ("rows", PREFILTER)}  # of the phases whose work must not be done again; scores read rows and fetched
_PREFILTER_TASK = "prefilter"

Place = tuple[str, int]
"""Tar and offset of an image's first byte."""


@dataclass(frozen=True)
class Leaving:
    """What leaves: `rows` are the lines of `curate.removal.targets.ROW_COLUMNS`; `hashes` bar stored images in any tar."""

    kind: str  # takedown or purge
    rows: pa.Table
    hashes: frozenset[str] = frozenset()
    erase_text: bool = True

    @property
    def withdraws(self) -> bool:
        """Whether nothing may stay of the rows but ids and URL; a purge deletes their bytes only."""
        return self.kind == "takedown"

    def in_part(self, part: int) -> pa.Table:
        """Its lines of one part."""
        return self.rows.filter(pc.equal(self.rows["part"], part))


@dataclass
class PartRewrite:
    """One part on its way; `files` are the new table files, by table."""

    pool: Pool
    leaving: Leaving
    part: int
    tables: Mapping[str, Snapshot]
    files: dict[str, PartFile] = field(default_factory=dict)
    bytes_freed: int = 0
    tars: dict[str, str | None] = field(default_factory=dict)  # old name -> new name, None when no member is left

    def write(self) -> dict[str, PartFile]:
        """Writes all files of the part that change; returns them by table."""
        gone = self.leaving.in_part(self.part)
        self._mask = np.zeros(self.tables["rows"].by_part[self.part].rows, np.bool_)
        self._mask[gone["row"].to_numpy()] = True
        if self.leaving.withdraws:
            rows = self._read("rows")
            self._publish("rows", withheld(rows, self._mask, self.leaving.erase_text))
            if self._has(PREFILTER):
                self._publish(PREFILTER, self._undecided(PREFILTER))
        if self._has("fetched"):
            self._publish("fetched", self._fetched(gone))
        for table in sorted(self.tables):
            if table.startswith("scores_") and self._has(table):
                self._publish(table, self._scores(table))
            elif self.leaving.withdraws and self._has(table):
                self._write_verdicts(table)
        return self.files

    def _write_verdicts(self, table: str) -> None:
        if table.startswith("decisions_") and table != PREFILTER:
            self._publish(table, self._undecided(table))
        elif table.startswith("groups_"):
            self._publish(table, emptied(self._read(table), ["group_id", "group_size", "match"], self._mask))

    def _has(self, table: str) -> bool:
        return table in self.tables and self.part in self.tables[table].by_part

    def _read(self, table: str) -> pa.Table:
        return pq.read_table(self.tables[table].path_of(self.part), partitioning=None)

    def _publish(self, table: str, data: pa.Table) -> None:
        self.files[table] = self.pool.write_part(table, self.part, data, self._basis(table), self.tables[table].schema)

    def _basis(self, table: str) -> str:
        """The basis over the new input files where the old one was that over the old ones; what was stale stays stale."""
        had = self.tables[table].by_part[self.part].basis
        if table == PREFILTER:
            is_current = had == fingerprint(_PREFILTER_TASK, self.tables["rows"].by_part[self.part].path)
            return fingerprint(_PREFILTER_TASK, self.files["rows"].path) if is_current else had
        inputs = ("rows", "fetched") if table.startswith("scores_") else _INPUTS.get(table, ())
        before = {name: self.tables[name].by_part[self.part].path for name in inputs if self._has(name)}
        after = {name: self.files[name].path if name in self.files else path for name, path in before.items()}
        identity = (self.pool.read_document(f"identity_{table}") or {}).get("identity")
        return part_basis(str(identity), after) if before and identity and had == part_basis(str(identity), before) else had

    # -- tables

    def _undecided(self, table: str) -> pa.Table:
        """Decisions as a policy leaves rows that had a reason before it saw them: not kept, and no rule named."""
        data = emptied(self._read(table), ["reason", "failed_rules"], self._mask)
        kept = pc.if_else(pa.array(self._mask), pa.scalar(False), data["keep"])
        return data.set_column(data.schema.get_field_index("keep"), data.schema.field("keep"), kept)

    def _scores(self, table: str) -> pa.Table:
        data = self._read(table)
        if not self.leaving.withdraws:
            return data
        data = emptied(data, [name for name in data.column_names if name not in ("part", "row", "basis", "embedding_file")], self._mask)
        if "embedding_file" not in data.column_names:
            return data
        names = [self._embeddings(table, name) for name in data["embedding_file"].to_pylist()[:1]]
        at = data.schema.get_field_index("embedding_file")
        return data.set_column(at, data.schema.field(at), pa.array(names * data.num_rows, pa.string()))

    def _embeddings(self, table: str, name: str | None) -> str | None:
        """The part's file with zeros for the rows that leave; None when no line is left."""
        if name is None:
            return None
        vectors = np.load(self.pool.path / name)
        vectors[self._mask] = 0
        if not vectors.any():
            return None
        temporary = self.pool.temporary(".npy")
        np.save(temporary, vectors)
        return self.pool.publish(temporary, str(Path(name).parent), f"{self.part:05d}")

    def _fetched(self, gone: pa.Table) -> pa.Table:
        data = self._read("fetched")
        moved = self._write_tars(data, gone)
        places = [_place(*at) for at in zip(data["tar_file"].to_pylist(), data["tar_offset"].to_pylist(), strict=True)]
        new = [moved.get(at, at) if at else None for at in places]
        for name, values in (("tar_file", [at and at[0] for at in new]), ("tar_offset", [at and at[1] for at in new])):
            data = data.set_column(
                data.schema.get_field_index(name), data.schema.field(name), pa.array(values, data.schema.field(name).type)
            )
        kept = ("part", "row", "basis")
        data = emptied(data, [name for name in data.column_names if name not in kept] if self.leaving.withdraws else IMAGES, self._mask)
        return self._with_reasons(data)

    def _with_reasons(self, data: pa.Table) -> pa.Table:
        """`fetched.reason` of rows that leave: their reason in `rows`, as the fetcher would write it, or `purged`."""
        own = pc.fill_null(self._new_rows()["reason"], "withdrawn") if self.leaving.withdraws else pa.scalar("purged")
        reason = pc.if_else(pa.array(self._mask), own, data["reason"])
        return data.set_column(data.schema.get_field_index("reason"), data.schema.field("reason"), reason.cast(pa.string()))

    def _new_rows(self) -> pa.Table:
        file = self.files.get("rows") or self.tables["rows"].by_part[self.part]
        return pq.read_table(self.tables["rows"].folder / file.path, columns=["sample_id", "caption", "reason"], partitioning=None)

    # -- tars

    def _write_tars(self, fetched: pa.Table, gone: pa.Table) -> dict[Place, Place]:
        """Writes every tar of the part that changes; returns where the images that stay were and are."""
        users, rows = _users(fetched, self._mask), self._new_rows().to_pylist()
        lines = gone.to_pylist()
        barred = {str(line["sample_id"]) for line in lines}
        places = {(line["tar_file"], line["tar_offset"]) for line in lines if line["image_goes"]}
        moved: dict[Place, Place] = {}
        for name in sorted(set(fetched["tar_file"].drop_null().to_pylist())):
            moved |= self._write_tar(name, users, rows, barred, places)
        return moved

    def _write_tar(
        self, name: str, users: Mapping[Place, int], rows: list[dict[str, str | None]], barred: set[str], places: set[Place]
    ) -> dict[Place, Place]:
        """One tar without what leaves. An image that stays for another row takes that row's name and caption."""
        path, temporary = self.pool.path / name, self.pool.temporary(".tar")
        moved: dict[int, int] = {}
        changed, barred = False, set(barred)  # by key; a caption follows its image, so it is met when the image has been judged
        try:
            with path.open("rb") as stream, TarWriter(temporary) as tar:
                for member in members(path):
                    stream.seek(member.offset)
                    data, (key, _, extension) = stream.read(member.size), member.name.partition(".")
                    user = users.get((name, member.offset))
                    if user is None and ((name, member.offset) in places or self._is_barred(data)):
                        barred.add(key)
                    if key not in barred:
                        moved[member.offset] = tar.add(member.name, data)
                        continue
                    changed = True
                    if user is not None:  # its owner leaves, another row goes on using it
                        moved[member.offset] = tar.add(f"{rows[user]['sample_id']}.{extension}", data)
                        tar.add(f"{rows[user]['sample_id']}.txt", remove_controls(rows[user]["caption"] or "").encode())
                empty = not tar.size_bytes
            if not changed:
                return {}
            new = None if empty else self.pool.publish(temporary, "tars", f"{self.part:05d}")
            self.bytes_freed += path.stat().st_size - (0 if new is None else (self.pool.path / new).stat().st_size)
            self.tars[name] = new
            return {(name, old): (new, at) for old, at in moved.items()} if new is not None else {}
        finally:
            temporary.unlink(missing_ok=True)

    def _is_barred(self, data: bytes) -> bool:
        return bool(self.leaving.hashes) and hashlib.sha256(data).hexdigest() in self.leaving.hashes


def _place(tar_file: str | None, offset: int | None) -> Place | None:
    return None if tar_file is None or offset is None else (tar_file, offset)


def _users(fetched: pa.Table, mask: NDArray[np.bool_]) -> dict[Place, int]:
    """For each image that stays the first row that uses it."""
    users: dict[Place, int] = {}
    for index, at in enumerate(zip(fetched["tar_file"].to_pylist(), fetched["tar_offset"].to_pylist(), strict=True)):
        place = _place(*at)
        if place is not None and not mask[index]:
            users.setdefault(place, index)
    return users
