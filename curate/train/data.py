"""From shards or a selection to batches: read, decode, crop, tokenise.

Small data is decoded once and kept (`Cached`), anything else is streamed through worker processes (`Streamed`). Which
samples stand in the batch of a step follows from seeds and the step's number alone, so a run resumes by its step count:
cached and selected data on any number of processes, packed shards exactly on the same number of workers and processes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from curate.errors import AccountingError, CurateError, UsageError
from curate.media.image import MediaError, decode_rgb
from curate.progress import Progress
from curate.shards.order import permutation
from curate.shards.reader import Consumer, Sample, ShardReader
from curate.shards.selection import Selection
from curate.stage import fingerprint
from curate.train.augment import Pixels, random_crop, shrink, working_side
from curate.train.distributed import World
from curate.train.model import Clip, Tokenizer
from curate.train.settings import TrainSettings

Source: TypeAlias = ShardReader | Selection
"""What can be trained on: packed shards, or rows of a pool where they lie."""

_BYTES_PER_PIXEL = 3 * 1.5  # the longer side of a shrunk photo is about one and a half times the shorter
_DECODED_AHEAD = 512


@dataclass(frozen=True)
class Batch:
    """Images (n, 3, side, side) uint8 and token ids (n, context_length) int64 of one process's share of a step."""

    images: torch.Tensor
    tokens: torch.Tensor

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from where a GPU copies while it computes."""
        return Batch(self.images.pin_memory(), self.tokens.pin_memory())


@dataclass(frozen=True)
class Recipe:
    """All that turns samples into batches; small enough to be sent to worker processes."""

    tokenizer: Tokenizer
    image_side: int
    crop_scale: tuple[float, float]
    seed: int
    batch_size: int  # of one process
    world_size: int
    rank: int

    @classmethod
    def of(cls, clip: Clip, settings: TrainSettings, place: World) -> Recipe:
        """The recipe of this process."""
        share = settings.batch_size // place.size
        return cls(clip.tokenizer, clip.image_side, settings.crop_scale, settings.seed, share, place.size, place.rank)

    @property
    def working_side(self) -> int:
        """Shorter side of a decoded image before it is cropped."""
        return working_side(self.image_side, self.crop_scale)

    def decode(self, image: bytes) -> Pixels | None:
        """Pixels ready to be cropped, or None for a damaged image."""
        try:
            return shrink(decode_rgb(image, min_side=self.working_side), self.working_side)
        except MediaError:
            return None

    def crop(self, image: Pixels, epoch: int, sample_id: str) -> Pixels:
        """The view of the image that this epoch shows."""
        return random_crop(image, self.image_side, self.crop_scale, self.seed, epoch, sample_id)


def digest(source: Source) -> str:
    """Fingerprint of which samples a source holds and in which orders it gives them."""
    if isinstance(source, ShardReader):
        return fingerprint("shards", source.index.basis, source.index.digest, str(source.seed))
    sink = hashlib.sha256()
    for column in ("sample_id", "caption"):
        for text in source.rows[column].to_pylist():
            sink.update(f"{text}\n".encode())
    return fingerprint("selection", sink.hexdigest(), str(source.seed))


def fits(source: Source, settings: TrainSettings, image_side: int) -> bool:
    """Whether all decoded images can be kept in memory; they then come in another order than streamed ones."""
    side = working_side(image_side, settings.crop_scale)
    return len(source) * side**2 * _BYTES_PER_PIXEL <= settings.cache_bytes


def batches(source: Source, recipe: Recipe, settings: TrainSettings, progress: Progress, steps: range) -> Iterator[Batch]:
    """The batches of the given steps, kept in memory where `settings.cache_bytes` allows, else streamed."""
    if fits(source, settings, recipe.image_side):
        return Cached.load(source, recipe, max(1, settings.workers), progress).batches(steps)
    return stream(source, recipe, settings.workers, steps)


# -- in memory


@dataclass(frozen=True)
class Cached:
    """All samples decoded and tokenised; `images[i]`, `tokens[i]` and `sample_ids[i]` belong together."""

    recipe: Recipe
    images: Sequence[Pixels]
    tokens: torch.Tensor
    sample_ids: Sequence[str]

    @classmethod
    def load(cls, source: Source, recipe: Recipe, threads: int, progress: Progress) -> Cached:
        """Reads one epoch; damaged images are left out. Raises UsageError when fewer than a batch are left."""
        images, captions, names = [], [], []
        progress.start("decode", len(source), "samples")
        for sample, pixels in _decoded(source.epoch(0), recipe, threads):
            progress.advance("decode")
            if pixels is not None:
                images.append(pixels)
                captions.append(sample.caption)
                names.append(sample.sample_id)
        progress.finish("decode")
        if len(images) < recipe.batch_size * recipe.world_size:
            raise UsageError(f"only {len(images)} of {len(source)} images can be decoded, fewer than one batch: lower train.batch_size")
        return cls(recipe, images, _tokens(recipe.tokenizer, captions), names)

    def batches(self, steps: range) -> Iterator[Batch]:
        """This process's batches; an epoch's order does not depend on how many processes share it."""
        recipe = self.recipe
        per_epoch = len(self.images) // (recipe.batch_size * recipe.world_size)
        for epoch, group in itertools.groupby(steps, lambda step: step // per_epoch):
            order = permutation(len(self.images), recipe.seed, epoch)
            for step in group:
                start = ((step % per_epoch) * recipe.world_size + recipe.rank) * recipe.batch_size
                yield self._batch(order[start : start + recipe.batch_size].tolist(), epoch)

    def _batch(self, chosen: list[int], epoch: int) -> Batch:
        crops = [self.recipe.crop(self.images[at], epoch, self.sample_ids[at]) for at in chosen]
        return Batch(_stacked(crops), self.tokens[chosen])


def _decoded(samples: Iterator[Sample], recipe: Recipe, threads: int) -> Iterator[tuple[Sample, Pixels | None]]:
    with ThreadPoolExecutor(threads) as pool:
        while ahead := list(itertools.islice(samples, _DECODED_AHEAD)):
            yield from zip(ahead, pool.map(lambda sample: recipe.decode(sample.image), ahead), strict=True)


# -- streamed


def stream(source: Source, recipe: Recipe, workers: int, steps: range) -> Iterator[Batch]:
    """Batches made by `workers` processes ahead of the loop (0: in this process). Raises what the source raises."""
    dataset = Streamed(source, recipe, steps)
    loader: DataLoader[Batch | CurateError] = DataLoader(
        dataset, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
    for item in loader:
        if isinstance(item, CurateError):
            raise item
        yield item


class Streamed(IterableDataset[Batch | CurateError]):
    """What each worker process of a loader runs: every `workers`-th batch of the steps, beginning with its own number."""

    def __init__(self, source: Source, recipe: Recipe, steps: range) -> None:
        self.source, self.recipe, self.steps = source, recipe, steps

    def __iter__(self) -> Iterator[Batch | CurateError]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        read = partial(_selected, self.source) if isinstance(self.source, Selection) else partial(_sharded, self.source)
        try:
            for epoch, samples in read(self.recipe, self.steps, number, count):
                yield self._batch(samples, epoch)
        except CurateError as error:  # a loader would bury it in a traceback
            yield error

    def _batch(self, samples: Sequence[Sample], epoch: int) -> Batch:
        """Damaged images are replaced by whole ones of the batch, so that every process keeps its step count."""
        decoded = [(sample, pixels) for sample in samples if (pixels := self.recipe.decode(sample.image)) is not None]
        if not decoded:
            raise AccountingError(f"not one of {len(samples)} images in a row can be decoded, the first is {samples[0].sample_id}")
        whole = list(itertools.islice(itertools.cycle(decoded), len(samples)))
        crops = [self.recipe.crop(pixels, epoch, sample.sample_id) for sample, pixels in whole]
        return Batch(_stacked(crops), _tokens(self.recipe.tokenizer, [sample.caption for sample, _ in whole]))


def _selected(source: Selection, recipe: Recipe, steps: range, worker: int, workers: int) -> Iterator[tuple[int, list[Sample]]]:
    """Epoch by epoch, the last partial batch of each left out; an epoch's positions are shared by all processes."""
    whole = recipe.batch_size * recipe.world_size
    per_epoch = len(source) // whole
    for epoch in range(steps.start // per_epoch, -(-steps.stop // per_epoch)):
        first = max(steps.start, epoch * per_epoch)
        mine = (worker + steps.start - first) % workers  # the loader asks its workers in turn, across epochs
        count = len(range(first + mine, min(steps.stop, (epoch + 1) * per_epoch), workers))
        consumer = Consumer(recipe.rank, recipe.world_size, mine, workers)
        samples = source.epoch(epoch, consumer, (first - epoch * per_epoch) * whole, recipe.batch_size)
        for _ in range(count):
            yield epoch, list(itertools.islice(samples, recipe.batch_size))


def _sharded(source: ShardReader, recipe: Recipe, steps: range, worker: int, workers: int) -> Iterator[tuple[int, list[Sample]]]:
    """Each consumer reads its own share epoch after epoch without a gap; step s is made by worker s modulo `workers`."""
    mine = (worker + steps.start) % workers
    consumer = Consumer(recipe.rank, recipe.world_size, mine, workers)
    share = len(source.share(consumer))
    position = len(range(mine, steps.start, workers)) * recipe.batch_size
    samples = _endless(source, consumer, position // share, position % share)
    for _ in range(len(range(steps.start + worker, steps.stop, workers))):
        yield position // share, list(itertools.islice(samples, recipe.batch_size))
        position += recipe.batch_size


def _endless(source: ShardReader, consumer: Consumer, epoch: int, start: int) -> Iterator[Sample]:
    while True:
        first = next(samples := source.epoch(epoch, consumer, start), None)
        if first is None and start == 0:
            raise AccountingError(f"{source.folder}: no whole shard is left for {consumer}")
        yield from () if first is None else itertools.chain([first], samples)
        epoch, start = epoch + 1, 0


def _stacked(crops: list[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2)))


def _tokens(tokenizer: Tokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(captions)
