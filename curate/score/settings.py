"""Settings of a scoring phase: its name, which is part of the table's, and its scorers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from curate.score.caption import CaptionScorer
from curate.score.clip_scorer import ClipScorer
from curate.score.image import ImageScorer
from curate.settings import Settings

AnyScorer = Annotated[ImageScorer | CaptionScorer | ClipScorer, Field(discriminator="kind")]


class ScoreSettings(Settings):
    """What is computed in one pass over the images, into table `scores_<name>`.

    A table holds the embeddings of at most one CLIP model; a second model is a second phase with a name of its own.
    `decode_threads` read and decode ahead of the models; they change no value. `image_batch` distinct images are in
    flight at a time.
    """

    name: str = Field(default="base", pattern=r"^[a-z0-9_]+$")
    scorers: tuple[AnyScorer, ...] = Field(default=(ImageScorer(), CaptionScorer()), min_length=1)
    image_batch: int = Field(default=256, ge=1)
    decode_threads: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="after")
    def _one_of_each_kind(self) -> ScoreSettings:
        kinds = [scorer.kind for scorer in self.scorers]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"two {twice[0]} scorers in one table: give the second a score phase with a name of its own")
        return self

    @property
    def clip(self) -> ClipScorer | None:
        """The CLIP scorer, if there is one."""
        return next((scorer for scorer in self.scorers if isinstance(scorer, ClipScorer)), None)
