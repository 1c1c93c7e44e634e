"""One part without the rows that leave: its tables and embeddings, written anew beside the old ones.

Nothing is committed here. Equal inputs give equal file names, so a removal that was killed simply writes them again. What
was up to date stays so: the new files record that they were computed from each other, as if the phases had run on a pool
that never had these rows, and no other row is fetched or scored again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.plan.prefilter import TABLE as PREFILTER
from curate.removal.tars import Leaving, Place
from curate.stage import PartFile, fingerprint, part_basis
from curate.store import Pool, Snapshot
from curate.suppress import emptied, withheld

IMAGES = ("tar_file", "tar_offset", "tar_size")
_INPUTS = {"fetched": ("rows", PREFILTER)}  # of the phases whose work must not be done again; scores read rows and fetched
_PREFILTER_TASK = "prefilter"


@dataclass
class PartRewrite:
    """One part on its way; `moved` says where images are now that tars were written anew. `files` are the new table files, by table."""

    pool: Pool
    leaving: Leaving
    part: int
    tables: Mapping[str, Snapshot]
    moved: Mapping[Place, Place]
    files: dict[str, PartFile] = field(default_factory=dict)

    def write(self) -> dict[str, PartFile]:
        """Writes all files of the part that change; returns them by table. None change where no row leaves and no image moved."""
        self._mask = self.leaving.mask(self.part, self.tables["rows"].by_part[self.part].rows)
        self._loses = bool(self._mask.any())
        withdraws = self._loses and self.leaving.withdraws
        if withdraws:
            self._publish("rows", withheld(self._read("rows"), self._mask, self.leaving.erase_text))
            if self._has(PREFILTER):
                self._publish(PREFILTER, self._undecided(PREFILTER))
        if self._has("fetched"):
            fetched = self._fetched()
            if fetched is None:
                return self.files
            self._publish("fetched", fetched)
        for table in sorted(self.tables):
            if table.startswith("scores_") and self._has(table):
                self._publish(table, self._scores(table))
            elif withdraws and self._has(table):
                self._write_verdicts(table)
        return self.files

    def _write_verdicts(self, table: str) -> None:
        if table.startswith("decisions_") and table != PREFILTER:
            self._publish(table, self._undecided(table))
        elif table.startswith("groups_"):
            data = self._read(table)
            self._publish(table, emptied(data, [name for name in data.column_names if name not in ("part", "row", "basis")], self._mask))

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
        if not (self.leaving.withdraws and self._loses):
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

    def _fetched(self) -> pa.Table | None:
        """Table `fetched` with new places, and without what leaves; None when it stays as it is."""
        data = self._read("fetched")
        places = list(zip(data["tar_file"].to_pylist(), data["tar_offset"].to_pylist(), strict=True))
        new = [self.moved.get(at, at) for at in places]
        if new == places and not self._loses:
            return None
        for column, name in enumerate(("tar_file", "tar_offset")):
            values = pa.array([at[column] for at in new], data.schema.field(name).type)
            data = data.set_column(data.schema.get_field_index(name), data.schema.field(name), values)
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
        return pq.read_table(self.tables["rows"].folder / file.path, columns=["reason"], partitioning=None)
