"""Part tars without the images that leave. The part that a tar is named after writes it, for the rows of all parts that use it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.catalog.borrowed import part_of
from curate.media.tar import TarWriter, members
from curate.media.text import remove_controls
from curate.store import Pool, Snapshot

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

    def mask(self, part: int, rows: int) -> NDArray[np.bool_]:
        """Which of a part's rows leave, shape (rows,)."""
        mask = np.zeros(rows, np.bool_)
        mask[self.in_part(part)["row"].to_numpy()] = True
        return mask


@dataclass
class TarRewrite:
    """The tars of `owners`; `parts` are the owners and all parts that use their images.

    `moved` says where the images that stay were and are, in tars that changed; `tars` the new name of each of these, None
    when no row uses it any more.
    """

    pool: Pool
    leaving: Leaving
    owners: Collection[int]
    parts: Collection[int]
    tables: Mapping[str, Snapshot]
    moved: dict[Place, Place] = field(default_factory=dict)
    tars: dict[str, str | None] = field(default_factory=dict)
    bytes_freed: int = 0

    def write(self) -> None:
        """Writes every tar of the owners that changes, beside the old one."""
        lines = [line for part in sorted(self.parts) for line in self.leaving.in_part(part).to_pylist()]
        self._barred = {str(line["sample_id"]) for line in lines}
        gone = self.leaving.rows.filter(self.leaving.rows["image_goes"])
        self._gone = {at for at in zip(gone["tar_file"].to_pylist(), gone["tar_offset"].to_pylist(), strict=True) if self._owns(at[0])}
        self._users = self._who_stays()
        self._rows: dict[int, pa.Table] = {}
        used = {name for name, _ in self._users}
        for name in sorted(used | {name for name, _ in self._gone}):
            path = self.pool.path / name
            if name in used:
                self._write_tar(name)
            elif path.exists():
                self.tars[name] = None
                self.bytes_freed += path.stat().st_size

    def _owns(self, tar_file: str | None) -> bool:
        return tar_file is not None and part_of(tar_file) in self.owners

    def _who_stays(self) -> dict[Place, tuple[int, int]]:
        """For each image of these tars that stays the first (part, row) that uses it."""
        users: dict[Place, tuple[int, int]] = {}
        fetched = self.tables["fetched"]
        for part in sorted(set(self.parts) & fetched.by_part.keys()):
            lines = fetched.read(["tar_file", "tar_offset"], [part])
            mask = self.leaving.mask(part, lines.num_rows)
            for row, place in enumerate(zip(lines["tar_file"].to_pylist(), lines["tar_offset"].to_pylist(), strict=True)):
                if not mask[row] and self._owns(place[0]):
                    users.setdefault(place, (part, row))
        return users

    def _write_tar(self, name: str) -> None:
        """One tar without what leaves. An image that stays for another row takes that row's name and caption."""
        path, temporary = self.pool.path / name, self.pool.temporary(".tar")
        moved: dict[int, int] = {}
        changed, barred = False, set(self._barred)  # by key; a caption follows its image, so it is met when the image has been judged
        try:
            with path.open("rb") as stream, TarWriter(temporary) as tar:
                for member in members(path):
                    stream.seek(member.offset)
                    data, (key, _, extension) = stream.read(member.size), member.name.partition(".")
                    user = self._users.get((name, member.offset))
                    if user is None and ((name, member.offset) in self._gone or self._is_barred(data)):
                        barred.add(key)
                    if key not in barred:
                        moved[member.offset] = tar.add(member.name, data)
                        continue
                    changed = True
                    if user is not None:  # its owner leaves, another row goes on using it
                        sample_id, caption = self._told(*user)
                        moved[member.offset] = tar.add(f"{sample_id}.{extension}", data)
                        tar.add(f"{sample_id}.txt", remove_controls(caption or "").encode())
            if changed:
                new = self.pool.publish(temporary, "tars", f"{part_of(name):05d}")
                self.bytes_freed += path.stat().st_size - (self.pool.path / new).stat().st_size
                self.tars[name] = new
                self.moved |= {(name, old): (new, at) for old, at in moved.items()}
        finally:
            temporary.unlink(missing_ok=True)

    def _told(self, part: int, row: int) -> tuple[str, str | None]:
        """sample_id and caption of a row that stays."""
        if part not in self._rows:
            path = self.tables["rows"].path_of(part)
            self._rows[part] = pq.read_table(path, columns=["sample_id", "caption"], partitioning=None)
        line = self._rows[part].slice(row, 1).to_pylist()[0]
        return str(line["sample_id"]), line["caption"]

    def _is_barred(self, data: bytes) -> bool:
        return bool(self.leaving.hashes) and hashlib.sha256(data).hexdigest() in self.leaving.hashes
