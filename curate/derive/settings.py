"""What a person may say about numbers derived from embeddings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from curate.derive.clip_loss import NegClipLoss
from curate.derive.clusters import Clusters
from curate.derive.heads import Head
from curate.derive.measure import COLUMN
from curate.derive.normsim import NormSim
from curate.derive.phrases import Phrases
from curate.settings import Settings


class DeriveSettings(Settings):
    """What goes into table `scores_<name>`, from the embeddings of table `scores_<of>`; what is null is not computed.

    `heads` are named by the columns that they fill. `phrases` are counted over the captions of the whole pool, into a table of
    their own.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    of: str = ""  # default: the only table that holds embeddings
    clusters: Clusters | None = None
    normsim: NormSim | None = None
    neg_clip_loss: NegClipLoss | None = None
    phrases: Phrases | None = None
    heads: dict[Annotated[str, StringConstraints(pattern=COLUMN)], Head] = {}

    @model_validator(mode="after")
    def _at_least_one(self) -> DeriveSettings:
        embedded = bool(self.clusters or self.normsim or self.neg_clip_loss or self.heads)
        if not embedded and self.phrases is None:
            raise ValueError(
                "nothing to derive: say one of clusters, normsim, neg_clip_loss, heads and phrases,"
                " for example  neg_clip_loss.temperature=0.01"
            )
        if self.phrases is not None and (embedded or self.of):
            raise ValueError("phrases are of captions, the rest of embeddings: give them a table of their own  (--name)")
        return self
