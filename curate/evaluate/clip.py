"""Any CLIP model as a predict function, loaded and preprocessed exactly as for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.evaluate.base import Embeddings, Pixels
from curate.score.clip import Clip, Precision, load_clip


@dataclass(frozen=True)
class ClipPredict:
    """A loaded model; images are decoded pixels of any size."""

    clip: Clip

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""
        return self.clip.weights.sha256

    def encode_images(self, images: Sequence[Pixels]) -> Embeddings:
        """One unit vector per image."""
        return self.clip.encode_images([self.clip.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """One unit vector per text."""
        return self.clip.encode_texts(texts)


def clip_predict(model: str | Path, weights: str | None = None, device: str = "auto", precision: Precision = "auto") -> ClipPredict:
    """The model in folder `model`, or open_clip's architecture `model` with `weights` (a tag, `hf-hub:…` or a folder).

    Raises UsageError when it cannot be loaded.
    """
    if weights is None:
        return ClipPredict(load_clip(Path(model).name, f"local-dir:{model}", device, precision))
    return ClipPredict(load_clip(str(model), weights, device, precision))
