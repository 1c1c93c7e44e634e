"""negCLIPLoss (first called s-CLIPLoss): a CLIP score less what the row owes to being like everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.cluster import blocks
from curate.derive.measure import COLUMN, Derived, Values, scores
from curate.derive.vectors import Vectors
from curate.embeddings import Unit, units
from curate.settings import Settings
from curate.stage import identity_of

_ROWS, _COLUMNS = 1024, 4096
_VERSION = 1


class NegClipLoss(Settings):
    """How much the CLIP loss likes a row, over `repeats` random batches of `batch_size` rows each, at `temperature`.

    Method: Wang et al. (arXiv:2405.19547): the cosine less the mean over batches of temperature / 2 times the sum of both log
    partition sums, image to texts and text to images; 0.01 is the temperature of OpenAI's models, and 10 batches of 32,768 are
    what the paper takes. The paper divides the pool into batches anew each time. Here the batches are drawn once, and each row
    is put into every one of them, in place of the last row where it is not among the others: the same mean over random batches,
    but one that is equal for all rows, needs one reading of the pool, and does not change when rows are added. Where the pool
    is not larger than a batch, the batch is the pool.
    """

    temperature: float = Field(default=0.01, gt=0)
    batch_size: int = Field(default=32_768, ge=2)
    repeats: int = Field(default=10, ge=1)
    seed: int = 0
    column: str = Field(default="neg_clip_loss", pattern=COLUMN)


@dataclass(frozen=True)
class DrawnClipLoss:
    """`NegClipLoss` with its batches: `file` is what `curate.derive.fit.batches` wrote, `drawn` the fingerprint of who is in them."""

    settings: NegClipLoss
    file: str
    drawn: str

    @property
    def adds(self) -> pa.Schema:
        """One float32 column."""
        return scores((self.settings.column, pa.float32(), "CLIP score less the log partition sums of random batches; higher is better"))

    def identity(self) -> str:
        """Changes with the settings and with the rows that were drawn, not with the place of the file."""
        return identity_of("NegClipLoss", _VERSION, {**self.settings.model_dump(mode="json"), "drawn": self.drawn})

    def open(self) -> Derived:
        """Maps the batches: (batches, size, 2, dim) of float16, and which row of which part each line is."""
        vectors, rows = np.load(f"{self.file}.npy", mmap_mode="r"), np.load(f"{self.file}.rows.npy")

        def derive(part: Vectors) -> Values:
            cosine = np.einsum("nd,nd->n", part.images, part.texts)
            owed = [self._owed(part, cosine, batch, who) for batch, who in zip(vectors, rows, strict=True)]
            return [(cosine - self.settings.temperature / 2 * np.mean(owed, axis=0)).astype(np.float32)]

        return derive

    def _owed(self, part: Vectors, cosine: NDArray[np.float32], batch: NDArray[np.float16], who: NDArray[np.int32]) -> NDArray[np.float64]:
        """For each row both log partition sums, of the batch in which it takes the last place where it has none."""
        images, texts = units(batch[:, 0]), units(batch[:, 1])
        there = np.asarray(batch.any(axis=(1, 2)))  # a row that was taken down since has left
        is_member = np.isin(part.place, who[:-1][who[:-1, 0] == part.part, 1])
        owed = np.zeros(len(cosine))
        for mine, theirs in ((part.images, texts), (part.texts, images)):
            last = mine @ theirs[-1] if there[-1] else np.full(len(mine), -np.inf, np.float32)
            owed += self._log_sum(mine, theirs[:-1][there[:-1]], np.where(is_member, last, cosine))
        return owed

    def _log_sum(self, mine: Unit, others: Unit, extra: NDArray[np.float32]) -> NDArray[np.float64]:
        """For each of `mine` the logarithm of the sum of exp(cosine / temperature) over all `others` and one cosine more."""
        total = extra.astype(np.float64) / self.settings.temperature
        for start, rows in blocks(mine, _ROWS):
            here = slice(start, start + len(rows))
            for first in range(0, len(others), _COLUMNS):
                logits = rows @ others[first : first + _COLUMNS].T / np.float32(self.settings.temperature)
                most = logits.max(axis=1, keepdims=True)
                found = np.log(np.exp(logits - most).sum(axis=1, dtype=np.float64)) + most[:, 0]
                total[here] = np.logaddexp(total[here], found)
        return total
