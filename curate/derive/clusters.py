"""DataComp's image-based filter: which cluster of the pool an image is in, and whether reference images are in it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.cluster import nearest
from curate.derive.measure import COLUMN, Derived, Values, scores
from curate.derive.vectors import Reference, Vectors
from curate.settings import Settings
from curate.stage import fingerprint

_VERSION = 1


class Clusters(Settings):
    """Clusters of the pool's image embeddings, and those that are the nearest to some embedding of `reference`.

    Method: Gadre et al.: DataComp (arXiv:2304.14108), section 3.3, image-based filtering: 100,000 clusters by k-means, each
    ImageNet image names the nearest, and images of named clusters are kept. As there, k-means goes by Euclidean distance for
    20 iterations, images find their cluster by the inner product with its mean. `sample` rows are drawn for it by hash, out of
    those that satisfy `where`: there all of the small pool, 30 and 3 % of the large ones, with captions that passed its caption
    filter. `centroids` takes those of a file in their place, such as the published ones (saved as .npy).
    """

    reference: Reference
    count: int = Field(default=100_000, ge=1)
    sample: int = Field(default=1_000_000, ge=1)
    where: str = ""  # SQL over `samples`
    iterations: int = Field(default=20, ge=1)
    seed: int = 0
    centroids: Reference | None = None
    column: str = Field(default="image_cluster", pattern=COLUMN)


@dataclass(frozen=True)
class FittedClusters:
    """`Clusters` with its centroids, an .npy (count, dim) of float32, and the numbers of those that the reference names."""

    centroids: str
    named: tuple[int, ...]
    column: str
    fitted: str  # fingerprint of settings, reference and centroids

    @property
    def adds(self) -> pa.Schema:
        """An int32 and a boolean."""
        return scores(
            (self.column, pa.int32(), "cluster of the image's embedding"),
            (f"{self.column}_named", pa.bool_(), "whether that cluster is the nearest to an embedding of the reference set"),
        )

    def identity(self) -> str:
        """Changes with what was fitted, not with the place of the file."""
        return fingerprint("Clusters", str(_VERSION), self.column, self.fitted)

    def open(self) -> Derived:
        """Maps the centroids."""
        centroids, named = np.load(self.centroids, mmap_mode="r"), np.asarray(self.named, np.int32)

        def derive(part: Vectors) -> Values:
            found = nearest(part.images, centroids)[0]
            return [found, np.isin(found, named)]

        return derive


def named_by(reference: Reference, centroids: np.ndarray) -> tuple[int, ...]:
    """Centroids that are the nearest to some vector of the reference, ascending."""
    found = [np.unique(nearest(block, centroids)[0]) for block in reference.units()]
    return tuple(np.unique(np.concatenate(found)).tolist())
