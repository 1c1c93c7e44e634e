"""The first round of the search for copies: pictures with their descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dedupe import exchanges as ex
from curate.dedupe.copies import SPAN, pictures
from curate.dedupe.tables import aligned, digest_words, line_up, names_of, parts_of, read_table, with_image
from curate.embeddings import COLUMN, stored
from curate.shuffle import Gathered, Lines, Out
from curate.stage import PartTask
from curate.store import Pool


@dataclass(frozen=True)
class ReadDescribed:
    """Reads a chunk of parts: every row with an image, and its descriptor."""

    scores: str  # table
    dim: int

    name = "described pictures"
    reads: Sequence[str] = ()

    @property
    def emits(self) -> Mapping[str, Lines]:
        """All rows, and how many each part has."""
        return {"pictures": pictures(self.dim), "parts": ex.PARTS}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One part after the other."""
        pool = Pool.open(task.pool)
        for part in parts_of(task):
            rows, fetched = aligned(task, part, ("row", "sample_id"), ("row", "reason", "sha256", *(name for name, _ in SPAN)), out)
            told = read_table(task.inputs[f"{self.scores}/{part}"], ("row", COLUMN))
            line_up(part, rows, told)
            there = with_image(fetched)
            both = stored(pool, told, part)
            vectors = np.zeros((len(there), self.dim), np.float16) if both is None else both[:, 0][there.to_numpy()]
            named = {**dict(zip(ex.SHA, digest_words(fetched.column("sha256").take(there)).T, strict=True)), **names_of(part, rows, there)}
            spans = {name: fetched.column(name).take(there).cast(kind) for name, kind in SPAN}
            has = pc.and_(pa.array(vectors.any(axis=1)), pc.is_valid(spans["tar_file"]))
            out.emit(
                "pictures", pa.table({**named, "shown": has, **spans, "vector": ex.vector_column(vectors)}, self.emits["pictures"].schema)
            )
