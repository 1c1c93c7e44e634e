"""Collects what the scorers say about one part, batch by batch, and puts it back into row order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.score.reading import Image, Seen
from curate.score.scorer import Batch, Opened, Scored
from curate.stage import WORKER_CRASHED


@dataclass
class PartResult:
    """Scores of one part under way; `rows` are the part's rows as `curate.score.reading.read_part` gives them."""

    rows: pa.Table
    counters: Counter[str] = field(default_factory=Counter)
    embeddings: NDArray[np.float16] | None = None
    gpu_seconds: float = 0.0
    _reasons: dict[int, str] = field(default_factory=dict)
    _places: list[NDArray[np.int64]] = field(default_factory=list)
    _columns: list[list[pa.RecordBatch]] = field(default_factory=list)

    def leave_out(self, images: Sequence[Image], rows: frozenset[int]) -> list[Image]:
        """The images as far as other rows show them; the rows end as `worker_crashed`."""
        if not rows:
            return list(images)
        out = pc.is_in(self.rows.column("row"), value_set=pa.array(sorted(rows), pa.int32())).to_numpy(zero_copy_only=False)
        places = [(image, image.rows[~out[image.rows]]) for image in images]
        left = {int(place): WORKER_CRASHED for image in images for place in image.rows[out[image.rows]]}
        self._reasons |= left
        self.counters["rows"] += len(left)
        return [replace(image, rows=kept) for image, kept in places if len(kept)]

    def add(self, opened: Sequence[Opened], seen: Sequence[Seen]) -> None:
        """Scores all rows of a batch of images with every scorer."""
        places = np.concatenate([one.image.rows for one in seen])
        image = np.repeat(np.arange(len(seen)), [len(one.image.rows) for one in seen])
        rows = self.rows.take(pa.array(places))
        scored = [scorer.score(Batch(rows, image, [one.observed[at] for one in seen])) for at, scorer in enumerate(opened)]
        self._places.append(places)
        self._columns.append([one.columns for one in scored])
        self._reasons |= {int(row): one.reason for one in seen if one.reason for row in one.image.rows}
        self.counters.update(images=len(seen), rows=len(places), model_calls=sum(one.model_calls for one in scored))
        self.counters["decodes"] += sum(one.decoded for one in seen)
        self.gpu_seconds += sum(one.gpu_seconds for one in scored)
        for one in scored:
            self._keep_embeddings(places, one)

    def _keep_embeddings(self, places: NDArray[np.int64], scored: Scored) -> None:
        if scored.embeddings is None:
            return
        if self.embeddings is None:
            self.embeddings = np.zeros((self.rows.num_rows, *scored.embeddings.shape[1:]), np.float16)
        self.embeddings[places] = scored.embeddings

    def table(self, adds: Sequence[pa.Schema]) -> pa.Table:
        """row, reason and the scorers' columns for all rows of the part; null where a row has no image."""
        count = self.rows.num_rows
        reasons: list[str | None] = [self._reasons.get(row) for row in range(count)]
        columns: dict[str, Any] = {"row": self.rows.column("row"), "reason": pa.array(reasons, pa.string())}
        order = self._order(count)
        for at, schema in enumerate(adds):
            together = pa.Table.from_batches([batch[at] for batch in self._columns], schema=schema)
            columns |= {name: together.column(name).take(order) for name in schema.names}
        return pa.table(columns)

    def _order(self, count: int) -> pa.Array:
        """For each row of the part its place among the scored rows, null when it is not among them."""
        place = np.full(count, -1, np.int64)
        scored = np.concatenate([np.zeros(0, np.int64), *self._places])
        place[scored] = np.arange(len(scored))
        return pa.array(place, mask=place < 0)

    def counted(self) -> dict[str, float]:
        """What the part took: images, rows, model calls, decodes, and a GPU's seconds where one computed."""
        return {**self.counters, **({"gpu_seconds": self.gpu_seconds} if self.gpu_seconds else {})}

    def reasons(self) -> dict[str, int]:
        """Rows with an image by reason, or ok."""
        failed = Counter(self._reasons.values())
        return {"ok": self.counters["rows"] - failed.total(), **failed}
