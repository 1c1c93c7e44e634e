"""Settings of decontamination."""

from __future__ import annotations

from pydantic import Field

from curate.settings import Settings


class DecontaminateSettings(Settings):
    """Which rows count as showing or saying what an item of an evaluation set does.

    Equal bytes always count. A picture that a hash names (`radius_bits` of 64, in table `scores_<scores>`) counts when the pixels bear
    it out: laid on the item's picture, which may be cut at its borders as long as `least_share` of each side is left, grey values
    correlate by at least `correlation` and no colour is off by more than `chroma_tolerance` (0 to 255). On generated scenes copies
    correlate by 0.988 and more, other scenes by 0.73 at most, and recoloured ones are off by 21 and more. A hash does not name pictures
    that were cut by much; a descriptor does. Table `scores_<descriptor>` holds those of the pool (auto: the only one that does, null: none
    is compared); pictures count when their cosine is at least `cosine`, a loose bound, and the pixels bear it out in the same way.

    Captions count only when `caption_words` says so: that many words in a row, in their normal form, which a caption of the item has
    too. GPT-3 was compared at 13 words, DataTrove takes 12; short runs are often common phrases.

    Of each row at most `evidence` items are named.
    """

    scores: str = Field(default="base", pattern=r"^[a-z0-9_]+$")
    perceptual: bool = True
    radius_bits: int = Field(default=10, ge=0, le=20)
    correlation: float = Field(default=0.95, gt=0, le=1)
    chroma_tolerance: float = Field(default=20.0, ge=0)
    least_share: float = Field(default=0.8, gt=0.3, le=1)
    descriptor: str | None = "auto"
    cosine: float = Field(default=0.6, gt=-1, lt=1)
    caption_words: int | None = Field(default=None, ge=3, le=64)
    evidence: int = Field(default=8, ge=1, le=1000)
