"""NormSim: how near a picture is to the pictures of a target set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.cluster import blocks
from curate.derive.measure import COLUMN, Derived, Values, scores
from curate.derive.vectors import Reference, Vectors
from curate.settings import Settings
from curate.stage import identity_of

_ROWS = 2048


class NormSim(Settings):
    """The p-norm of a picture's cosines with all pictures of a target set, for p = infinity (the nearest one) and p = 2.

    Method: Wang et al.: CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive Learning
    (arXiv:2405.19547), NormSim_p(X, x) = || f(X) f(x) ||_p over unit image embeddings f. For p = 2 the target is summed up in a
    (dim, dim) matrix, so its cost does not grow with the target; for p = infinity each picture is compared with each.
    """

    target: Reference
    column: str = Field(default="normsim", pattern=COLUMN)  # begins both columns' names; another for another target

    @property
    def version(self) -> int:
        """See `curate.score.scorer.Scorer`."""
        return 1

    @property
    def adds(self) -> pa.Schema:
        """Two float32 columns."""
        return scores(
            (f"{self.column}_inf", pa.float32(), "largest absolute cosine of the image with an image of the target set"),
            (f"{self.column}_2", pa.float32(), "Euclidean norm of the cosines of the image with all images of the target set"),
        )

    def identity(self) -> str:
        """Changes with the target's bytes, wherever they lie."""
        return identity_of("NormSim", self.version, {"target": self.target.sha256(), "column": self.column})

    def open(self) -> Derived:
        """Sums the target up."""
        gram = sum(block.T.astype(np.float64) @ block for block in self.target.units())

        def derive(part: Vectors) -> Values:
            largest, squares = np.zeros(len(part.images), np.float32), np.zeros(len(part.images))
            for target in self.target.units():
                for start, images in blocks(part.images, _ROWS):
                    here = largest[start : start + len(images)]
                    np.maximum(here, np.abs(images @ target.T).max(axis=1), out=here)
            for start, images in blocks(part.images, _ROWS):
                squares[start : start + len(images)] = np.einsum("nd,nd->n", images @ gram, images)
            return [largest, np.sqrt(np.maximum(squares, 0)).astype(np.float32)]

        return derive
