"""How well a caption fits its picture: the cosine of a CLIP model's two embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.score.clip import Clip, Precision, column_name, load_clip, torch_threads, weights_label
from curate.score.reserve import Reserve, reserved
from curate.score.scorer import ROW_COLUMNS, Batch, Opened, Pixels, Scored, without_nan
from curate.score.weights import Model, find_weights
from curate.settings import Settings
from curate.stage import identity_of

MASKED = "masked_"


class Mask(Settings):
    """Where the boxes stand that are painted over before the model looks: column `boxes` of table `scores_<of>`."""

    of: str = Field(pattern=r"^[a-z0-9_]+$")
    boxes: str = "text_boxes"


class ClipScorer(Settings):
    """One CLIP model: see `curate.score.clip.load_clip` for `model`, `weights`, `device` and `precision`.

    `threads` are those of torch on a CPU; they are fixed here because scores of another number differ in the last bits.
    Rows in `reserve` get no score and no embedding: the model was fitted on them. With `mask`, the picture is seen with what lies
    in stored boxes painted over (T-MARS, arXiv 2307.03132); a picture whose boxes are not known gets no score.
    """

    model: str = "ViT-B-32"
    weights: str = "openai"
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int = Field(default=64, ge=1)
    threads: int = Field(default=1, ge=1)
    reserve: Reserve | None = None
    mask: Mask | None = None

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 2

    @property
    def column(self) -> str:
        """Name of the column that holds the cosine, -1 to 1."""
        return (MASKED if self.mask else "") + column_name(self.model, self.weights)

    @property
    def needs(self) -> pa.Schema:
        """Caption, and the sample_id that decides what is reserved."""
        return pa.schema([ROW_COLUMNS.field("sample_id"), ROW_COLUMNS.field("caption")])

    @property
    def adds(self) -> pa.Schema:
        """One float32 column."""
        seen = f", {self.mask.boxes} painted over" if self.mask else ""
        comment = f"cosine of image and caption embedding of {self.model}, weights {self.weights}{seen}"
        return pa.schema([pa.field(self.column, pa.float32(), metadata={"class": "scores", "comment": comment})])

    def provenance(self) -> tuple[Model]:
        """See `curate.score.scorer.Weighted`; fetches the weights when they are not on this machine yet."""
        return (Model(self.column, weights_label(self.weights), find_weights(self.model, self.weights).sha256, self.model),)

    def identity(self) -> str:
        """Where the weights lie does not matter, what they are does; so does the batch size, in the last bits."""
        settings = self.model_dump(mode="json", exclude={"weights"} if self.mask else {"weights", "mask"})
        return identity_of("ClipScorer", self.version, {**settings, "column": self.column, "weights_sha256": self.provenance()[0].sha256})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Loads the model and fixes torch's threads for as long as it is open."""
        with torch_threads(self.threads):
            clip = load_clip(self.model, self.weights, self.device, self.precision)
            yield Opened(clip.preprocess, partial(self._score, clip), masked=self.mask is not None)

    def _score(self, clip: Clip, batch: Batch) -> Scored:
        """Scores the rows that have pixels and are not reserved; each picture goes through the model once."""
        rows = self._scorable(batch)
        embeddings = np.zeros((batch.rows.num_rows, 2, clip.dim), np.float32)
        scores = np.full(batch.rows.num_rows, np.nan, np.float32)
        if rows.size:
            pictures, place = np.unique(batch.image[rows], return_inverse=True)
            captions = batch.rows.column("caption").take(pa.array(rows)).to_pylist()
            embeddings[rows, 0] = self._in_batches(clip.encode_images, [batch.observed[at] for at in pictures])[place]
            embeddings[rows, 1] = self._in_batches(clip.encode_texts, [caption or "" for caption in captions])
            scores[rows] = np.clip((embeddings[rows, 0] * embeddings[rows, 1]).sum(axis=1), -1, 1)
            embeddings[~np.isfinite(scores)] = 0
        column = without_nan(scores, pa.float32())
        return Scored(pa.RecordBatch.from_arrays([column], schema=self.adds), embeddings, int(rows.size), clip.clock.spent())

    def _scorable(self, batch: Batch) -> NDArray[np.int64]:
        wanted = [batch.observed[image] is not None for image in batch.image.tolist()]
        if self.reserve is not None:
            ids = batch.rows.column("sample_id").to_pylist()
            spared = [not reserved(name, self.reserve.fraction, self.reserve.salt) for name in ids]
            wanted = [one and other for one, other in zip(wanted, spared, strict=True)]
        return np.flatnonzero(np.asarray(wanted, np.bool_))

    def _in_batches(self, encode: Callable[[Any], NDArray[np.float32]], values: Sequence[Pixels] | Sequence[str]) -> NDArray[np.float32]:
        pieces = [encode(values[at : at + self.batch_size]) for at in range(0, len(values), self.batch_size)]
        return np.concatenate(pieces)
