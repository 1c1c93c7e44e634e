"""Descriptors for copy detection: any TorchScript file in the format in which SSCD is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.embeddings import Unit, units
from curate.errors import IdentityError, InputError
from curate.score import torchscript
from curate.score.clip import torch_threads
from curate.score.preprocess import IMAGENET_MEAN, IMAGENET_STD
from curate.score.scorer import Batch, Opened, Pixels, Scored
from curate.score.weights import Model
from curate.settings import Settings
from curate.stage import identity_of
from curate.store import Pool


class DescriptorScorer(Settings):
    """A TorchScript file at `path` that turns pictures (n, 3, side, side), normalised with `mean` and `std`, into (n, dim).

    Such a file is how Pizzi and others publish SSCD (A Self-Supervised Descriptor for Image Copy Detection, CVPR 2022), for example
    sscd_disc_mixup.torchscript.pt with 512 numbers. Pictures are stretched to a square, so that any number of them is one batch.
    Descriptors are stored at length 1, as embeddings with one side. A file of TorchScript is code: take it from whom you trust.
    """

    path: str = Field(min_length=1)
    side: int = Field(default=288, ge=16, le=2048)
    mean: tuple[float, float, float] = IMAGENET_MEAN  # as SSCD was trained
    std: tuple[float, float, float] = IMAGENET_STD
    device: str = "cpu"
    batch_size: int = Field(default=32, ge=1)
    threads: int = Field(default=1, ge=1)

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 1

    @property
    def needs(self) -> pa.Schema:
        """Nothing of the row."""
        return pa.schema([])

    @property
    def adds(self) -> pa.Schema:
        """No column: a descriptor is an embedding."""
        return pa.schema([])

    def sha256(self) -> str:
        """Of the file's bytes. Raises InputError when it cannot be read."""
        return Model.of("", self._file).sha256

    @property
    def _file(self) -> Path:
        return Path(self.path).expanduser()

    def identity(self) -> str:
        """Where the file lies does not matter, what it is does."""
        said = self.model_dump(mode="json", exclude={"path", "device"})
        return identity_of("DescriptorScorer", self.version, {**said, "sha256": self.sha256()})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Loads the file and fixes torch's threads for as long as it is open."""
        with torch_threads(self.threads):
            yield Opened(self.square, partial(self._score, self._load()))

    @contextmanager
    def describing(self) -> Iterator[Callable[[Sequence[Pixels]], Unit]]:
        """Loads it for whoever has pictures at hand; yields what gives their descriptors."""
        with torch_threads(self.threads):
            network = self._load()
            yield lambda pictures: self._described(network, [self.square(picture) for picture in pictures])

    def record(self, pool: Pool, table: str) -> None:
        """Writes down what a table was described with. Raises IdentityError when that was something else."""
        name = f"descriptor_{table}"
        said = {"settings": {**self.model_dump(mode="json"), "path": str(self._file.resolve())}, "sha256": self.sha256()}
        known = pool.read_document(name)
        if known is not None and pool.snapshot(table).files and _told(known) != _told(said):
            raise IdentityError(
                f"table {table} was described with another file than {self.path}, or other settings: give those, or another name  (--name)"
            )
        pool.write_document(name, said)

    @classmethod
    def recorded(cls, pool: Pool, table: str) -> DescriptorScorer | None:
        """What a table was described with; None for any other table. Raises IdentityError when the file is another one by now."""
        known = pool.read_document(f"descriptor_{table}")
        if known is None:
            return None
        found = cls.model_validate(known["settings"])
        if found.sha256() != known["sha256"]:
            raise IdentityError(f"{found.path}: not the file any more with which {table} was described: put that one back")
        return found if found.device == "cpu" or _has_gpu() else found.model_copy(update={"device": "cpu"})

    def square(self, pixels: Pixels) -> Pixels:
        """Stretched to the side that the network wants."""
        shrinks = max(pixels.shape[:2]) > self.side
        return np.asarray(
            cv2.resize(pixels, (self.side, self.side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
        )

    def _load(self) -> Any:
        return torchscript.load(self._file, self.device)

    def _described(self, network: Any, squares: Sequence[Pixels]) -> Unit:
        pieces = [self._batch(network, squares[at : at + self.batch_size]) for at in range(0, len(squares), self.batch_size)]
        return units(np.concatenate(pieces)) if pieces else np.zeros((0, 0), np.float32)

    def _batch(self, network: Any, squares: Sequence[Pixels]) -> NDArray[np.float32]:
        import torch

        mean, std = (np.array(colour, np.float32) for colour in (self.mean, self.std))
        pictures = (np.stack(squares).astype(np.float32) / 255 - mean) / std
        with torch.inference_mode():
            try:
                found = network(torch.from_numpy(pictures.transpose(0, 3, 1, 2)).contiguous().to(self.device))
            except RuntimeError as error:
                said = str(error).strip().splitlines()[-1]
                raise InputError(f"{self.path}: takes no pictures of (n, 3, {self.side}, {self.side}): {said}") from None
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(squares):
            raise InputError(f"{self.path}: gives no (n, dim) of {len(squares)} pictures, as a descriptor does")
        return np.asarray(found.float().cpu().numpy(), np.float32)

    def _score(self, network: Any, batch: Batch) -> Scored:
        """Each picture goes through the network once; rows without one stay zero."""
        rows = np.flatnonzero([batch.observed[image] is not None for image in batch.image.tolist()])
        columns = pa.RecordBatch.from_arrays([], schema=self.adds)
        if not rows.size:
            return Scored(columns)
        pictures, place = np.unique(batch.image[rows], return_inverse=True)
        found = self._described(network, [batch.observed[at] for at in pictures])
        embeddings = np.zeros((batch.rows.num_rows, 1, found.shape[1]), np.float32)
        embeddings[rows, 0] = np.nan_to_num(found, posinf=0, neginf=0)[place]
        return Scored(columns, embeddings, int(rows.size))


def _told(document: Mapping[str, Any]) -> dict[str, Any]:
    """What of a document says how pictures are described."""
    return {**{key: value for key, value in document["settings"].items() if key not in ("path", "device")}, "sha256": document["sha256"]}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
