"""What a person may say about numbers derived from embeddings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from curate.derive.clip_loss import NegClipLoss
from curate.derive.clusters import Clusters
from curate.derive.heads import Head
from curate.derive.measure import COLUMN
from curate.derive.normsim import NormSim
from curate.settings import Settings


class DeriveSettings(Settings):
    """What goes into table `scores_<name>`, from the embeddings of table `scores_<of>`; what is null is not computed.

    `heads` are named by the columns that they fill.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    of: str = ""  # default: the only table that holds embeddings
    clusters: Clusters | None = None
    normsim: NormSim | None = None
    neg_clip_loss: NegClipLoss | None = None
    heads: dict[Annotated[str, StringConstraints(pattern=COLUMN)], Head] = {}

    @model_validator(mode="after")
    def _at_least_one(self) -> DeriveSettings:
        if not (self.clusters or self.normsim or self.neg_clip_loss or self.heads):
            raise ValueError(
                "nothing to derive: say one of clusters, normsim, neg_clip_loss and heads, for example  neg_clip_loss.temperature=0.01"
            )
        return self
