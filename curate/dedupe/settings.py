"""Settings of duplicate search."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from curate.settings import Settings

Kind = Literal["pictures", "captions", "embeddings", "copies"]
_NAMES: dict[Kind, str] = {"pictures": "pixels", "captions": "captions", "embeddings": "semantic", "copies": "copies"}
_OF_PICTURES = {"perceptual", "radius_bits", "chroma_tolerance", "grey_tolerance", "brightness_percent"}
_NOT_OF: dict[Kind, set[str]] = {
    "pictures": {"captions", "semantic", "copies"},
    "captions": {"semantic", "copies", "scores", *_OF_PICTURES},
    "embeddings": {"captions", "copies", *_OF_PICTURES},
    "copies": {"captions", "semantic", *_OF_PICTURES},
}
"""Settings on which groups of a kind do not depend."""


class CaptionMatching(Settings):
    """Which captions say the same.

    A caption becomes the set of all runs of `characters` characters of its normal form (NFKC, lower case, every run of what is
    neither letter, mark nor digit one space). Captions of one normal form are equal. Two others match when the Jaccard index of
    their sets is at least `jaccard`. Candidates come from MinHash (`permutations` minima, seeded) in bands: of the pairs at the
    threshold at least the share `recall` is compared, of those above it more. A caption without a letter or a digit is alone.
    """

    characters: int = Field(default=5, ge=1, le=64)
    jaccard: float = Field(default=0.7, gt=0, le=1)
    recall: float = Field(default=0.98, gt=0, lt=1)
    permutations: int = Field(default=128, ge=1, le=1024)
    seed: int = Field(default=0, ge=0)


class Clustering(Settings):
    """How many clusters embeddings are compared in, and what their centroids are fitted on.

    `clusters` is by default one for `rows_per_cluster` rows. Centroids are fitted by `iterations` of spherical k-means on about
    `sample_per_cluster` rows each.
    """

    clusters: int | None = Field(default=None, ge=1)
    rows_per_cluster: int = Field(default=8800, ge=1)
    sample_per_cluster: int = Field(default=256, ge=1)
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)


class CopyMatching(Clustering):
    """Which pictures are copies of each other, also cut at their borders: over the descriptors of table `scores_<scores>`.

    Candidates have a cosine of at least `cosine` (SSCD's authors give 0.75 for about 90 % precision; here the pixels decide) and
    share one of the clusters of their nearest centroids: that of the nearest with any of the nearest and `visits` next ones. They are
    copies when the pixels bear it out: see `least_share`, `correlation` and `chroma_tolerance` of `curate decontaminate`.
    """

    cosine: float = Field(default=0.6, gt=-1, lt=1)
    visits: int = Field(default=2, ge=0, le=64)
    correlation: float = Field(default=0.95, gt=0, le=1)
    chroma_tolerance: float = Field(default=20.0, ge=0)
    least_share: float = Field(default=0.8, gt=0.3, le=1)


class SemanticMatching(Clustering):
    """Which pictures mean the same: SemDeDup (arXiv:2303.09540) over the image embeddings of table `scores_<scores>`.

    Rows are compared within a k-means cluster. One goes when its cosine to any row before it exceeds 1 - `epsilon`, in the order
    of `keep`: hard (the paper's choice) puts the rows first that are farthest from their centroid, easy the nearest, best those
    with the highest `score`, a column of that table (default: its CLIP cosine). `clusters` is by default one for 8,800 rows, as
    the paper's 50,000 for 440M. Centroids are fitted by `iterations` of spherical k-means on about `sample_per_cluster` rows each.

    Column `group_similarity` holds each row's largest cosine to one before it, so what a smaller epsilon would remove is known
    without another run. Which epsilon keeps what share depends on model and pool: look, before you choose.
    """

    epsilon: float = Field(default=0.05, ge=1e-6, lt=1)
    keep: Literal["hard", "easy", "best"] = "hard"
    score: str = ""


class DedupeSettings(Settings):
    """Which rows show the same picture, have the same caption or mean the same; found `by` one of them, into table `groups_<name>`.

    By pictures: equal bytes are always one group. Two other pictures match when their perceptual hashes (of table `scores_<scores>`)
    differ in at most `radius_bits` bits *and* their colour grids agree: the hash is grey and short, so alone it merges
    recoloured and blank pictures. Grids agree when, after one gain and one offset for the whole picture within
    `brightness_percent`, no cell is off by more than `grey_tolerance` (mean of the channels, 0 to 255) or `chroma_tolerance`
    (largest difference between channels). Measured on 1,500 copies (re-encoded, halved, brightness, blur) and 800 recoloured
    pictures of the generated corpus: copies stay below 4.5 in grey and 14 in chroma, recoloured pictures begin at 21 in chroma.

    By captions: see `CaptionMatching`; by embeddings: `SemanticMatching`; by copies: equal bytes and `CopyMatching`. The name is by default
    pixels, captions, semantic or copies.
    """

    name: str = Field(default="pixels", pattern=r"^[a-z0-9_]+$")
    by: Kind = "pictures"
    scores: str = Field(default="base", pattern=r"^[a-z0-9_]+$")
    perceptual: bool = True
    radius_bits: int = Field(default=4, ge=0, le=16)
    chroma_tolerance: float = Field(default=16.0, gt=0)
    grey_tolerance: float = Field(default=6.0, gt=0)
    brightness_percent: float = Field(default=20.0, ge=0, le=100)
    captions: CaptionMatching = CaptionMatching()
    semantic: SemanticMatching = SemanticMatching()
    copies: CopyMatching = CopyMatching()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, said: Any) -> Any:
        """The default name of another kind gives way to that of this one: a pool's settings hold the former."""
        if isinstance(said, dict) and said.get("by") in _NAMES and said.get("name", "pixels") in _NAMES.values():
            return {**said, "name": _NAMES[said["by"]]}
        return said

    @property
    def clustering(self) -> Clustering:
        """Of the embeddings that are compared."""
        return self.copies if self.by == "copies" else self.semantic

    def matters(self) -> dict[str, object]:
        """What the outcome depends on: the settings without those of other kinds."""
        return self.model_dump(mode="json", exclude=_NOT_OF[self.by])
