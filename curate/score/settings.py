"""Settings of a scoring phase: its name, which is part of the table's, and its scorers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from curate.score.caption import CaptionScorer
from curate.score.classifier import Classifier, ClassifierScorer
from curate.score.clip_scorer import ClipScorer
from curate.score.concepts import ConceptScorer
from curate.score.descriptor import DescriptorScorer
from curate.score.faces import FaceScorer
from curate.score.image import ImageScorer
from curate.score.own import OwnScorer
from curate.score.synsets import SynsetScorer
from curate.score.text import TextScorer
from curate.settings import Settings

AnyScorer = (
    ImageScorer
    | CaptionScorer
    | ConceptScorer
    | SynsetScorer
    | TextScorer
    | FaceScorer
    | ClassifierScorer
    | OwnScorer
    | ClipScorer
    | DescriptorScorer
)

RESERVED = ("part", "row", "reason", "embedding_file", "basis")
"""Columns of the table that no scorer gives."""


class ScoreSettings(Settings):
    """What is computed in one pass over the images, into table `scores_<name>`; a scorer that is null does not run.

    A second CLIP model, or a descriptor for copies, is a second phase with a name of its own. `decode_threads` read and decode
    ahead of the models; they change no value. `image_batch` distinct images are in flight at a time.
    """

    name: str = Field(default="base", pattern=r"^[a-z0-9_]+$")
    image: ImageScorer | None = ImageScorer()
    caption: CaptionScorer | None = CaptionScorer()
    concepts: ConceptScorer | None = None
    synsets: SynsetScorer | None = None
    text: TextScorer | None = None
    faces: FaceScorer | None = None
    classifiers: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")], Classifier] = {}  # by the columns that they fill
    own: dict[str, OwnScorer] = {}  # under any names
    clip: ClipScorer | None = None
    descriptor: DescriptorScorer | None = None
    image_batch: int = Field(default=256, ge=1)
    decode_threads: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="after")
    def _at_least_one(self) -> ScoreSettings:
        if not self.scorers:
            raise ValueError(
                "nothing to score: one of image, caption, concepts, synsets, text, faces, classifiers, own, clip and descriptor must run"
            )
        if self.clip and self.descriptor:
            raise ValueError("one table holds the embeddings of one model: score by clip and by descriptor under two names")
        if self.clip and self.clip.mask and self.clip.mask.of == self.name:
            raise ValueError(f"clip.mask.of={self.name}: boxes come from a table that is there before, so give this one another name")
        if self.own or self.classifiers:
            names = [*RESERVED, *(name for scorer in self.scorers for name in scorer.adds.names)]
            for name in {name for name in names if names.count(name) > 1}:
                raise ValueError(f"column {name} would be there twice: let the scorer give it another name")
        return self

    @property
    def reads_captions_alone(self) -> bool:
        """Whether no scorer can want to see a picture."""
        return all(isinstance(scorer, CaptionScorer | ConceptScorer | SynsetScorer) for scorer in self.scorers)

    @property
    def embeds(self) -> bool:
        """Whether the table names embeddings."""
        return self.clip is not None or self.descriptor is not None

    @property
    def scorers(self) -> tuple[AnyScorer, ...]:
        """Those that run, in the order of their columns."""
        classifiers = [ClassifierScorer(column=column, classifier=said) for column, said in self.classifiers.items()]
        seeing = (self.text, self.faces, *classifiers, *self.own.values(), self.clip, self.descriptor)
        every = (self.image, self.caption, self.concepts, self.synsets, *seeing)
        return tuple(scorer for scorer in every if scorer is not None)
