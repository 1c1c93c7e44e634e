"""curate's side of `tests.bench.score`: the phase on the local engine, and the bare loops that say what this machine could do."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from curate.engines.base import EngineSettings, PartFailure
from curate.media.image import decode_rgb
from curate.run import make_engine, stale_parts
from curate.score.clip import Clip, Precision, load_clip, torch_threads
from curate.score.clip_scorer import ClipScorer
from curate.score.phase import ScorePhase
from curate.score.preprocess import Normaliser, Preprocess
from curate.score.scorer import Opened
from curate.score.settings import ScoreSettings
from curate.score.weights import find_weights
from curate.store import Pool
from tests.bench.score_inputs import MEAN, STD, Model
from tests.score.pools import Row

WORKERS = 2
SIDE = 224


class Idle(ClipScorer):
    """A scorer whose model does nothing with its normalised batch of 224 pixels."""

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """As that of a real model, with one thread of torch."""
        preprocess = Preprocess((SIDE, SIDE), MEAN, STD)
        clip = Clip(
            _Nothing(), _no_tokens, preprocess, torch.device("cpu"), "fp32", find_weights(self.model, self.weights), 8,
            Normaliser(MEAN, STD),
        )  # fmt: skip
        with torch_threads(self.threads):
            yield Opened(preprocess, partial(self._score, clip))


class _Nothing(torch.nn.Module):
    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, 0, 0, :8]

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


def _no_tokens(texts: Sequence[str]) -> torch.Tensor:
    return torch.ones(len(texts), 8)


def scorer(model: Model, batch: int, precision: Precision = "fp32") -> ClipScorer:
    """The model as a scorer."""
    return ClipScorer(model=model.name, weights=str(model.folder), batch_size=batch, precision=precision)


def rate(pool: Pool, clip: ClipScorer) -> float:
    """Images per second of `curate score` with this model alone, two workers, from when each has done one part; commits nothing."""
    phase = ScorePhase(ScoreSettings(image=None, caption=None, clip=clip))
    tasks, _ = stale_parts(pool, phase)
    moments, images = [], []
    for outcome in make_engine(EngineSettings(workers=WORKERS)).each(phase, tasks):
        assert not isinstance(outcome, PartFailure), outcome.message
        moments.append(time.monotonic())
        images.append(outcome.counters["images"])
    return sum(images[WORKERS:]) / (moments[-1] - moments[WORKERS - 1])


def decode_limit(rows: Sequence[Row], seconds: float) -> float:
    """Images per second of decoding, resizing and cropping alone, on bytes in memory, two processes together."""
    data = [row.image for row in rows if row.image is not None]
    return _together(_decode_and_crop, data, seconds)


def forward_limit(model: Model, captions: Sequence[str], batch: int, seconds: float) -> float:
    """Pairs per second of both towers alone, on batches that are ready, two processes with one thread each."""
    return _together(_forward, (model, captions[:batch]), seconds)


def _together(loop: Callable[[Any, float], float], what: object, seconds: float) -> float:
    with multiprocessing.get_context("spawn").Pool(WORKERS) as crew:
        return sum(crew.starmap(loop, [(what, seconds)] * WORKERS, chunksize=1))


def _decode_and_crop(data: Sequence[bytes], seconds: float) -> float:
    crop = Preprocess((SIDE, SIDE), MEAN, STD)
    with torch_threads(1):
        return _repeated(lambda: [crop(decode_rgb(one)) for one in data], len(data), seconds)


def _forward(what: tuple[Model, Sequence[str]], seconds: float) -> float:
    model, captions = what
    with torch_threads(1):
        clip = load_clip(model.name, str(model.folder), "cpu", "fp32")
        numbers = torch.randn(len(captions), 3, *clip.preprocess.size)
        tokens = clip.tokenize(captions)
        return _repeated(lambda: (clip.encode_batch(numbers), clip.encode_tokens(tokens)), len(captions), seconds)


def _repeated(work: Callable[[], object], size: int, seconds: float) -> float:
    work()
    done, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        work()
        done += size
    return done / (time.monotonic() - begun)


def distance(model: Model, rows: Sequence[Row], precision: Precision) -> float:
    """The largest 1 - cosine between our embeddings of pictures and captions and those of open_clip from its own preprocessing."""
    import io

    clip = load_clip(model.name, str(model.folder), "cpu", precision)
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model.folder}")
    pictures, captions = [row.image or b"" for row in rows], [row.caption or "" for row in rows]
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(io.BytesIO(data))) for data in pictures])
        theirs = network.eval().encode_image(images, normalize=True).numpy()
        texts = network.encode_text(open_clip.get_tokenizer(f"local-dir:{model.folder}")(captions), normalize=True).numpy()
    ours = clip.encode_images([clip.preprocess(decode_rgb(data)) for data in pictures])
    return float(1 - np.concatenate([(ours * theirs).sum(axis=1), (clip.encode_texts(captions) * texts).sum(axis=1)]).min())
