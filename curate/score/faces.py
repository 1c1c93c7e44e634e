"""Faces in pictures: where they are, so that packing can blur them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate import schema as schemas
from curate.errors import InputError
from curate.score.scorer import Batch, Opened, Pixels, Scored
from curate.score.weights import Model
from curate.settings import Settings
from curate.stage import identity_of

_COLUMNS = ("face_count", "face_boxes")
_HAAR = "haarcascade_frontalface_default.xml"
_STEP, _NEIGHBOURS = 1.1, 5  # of the cascade's window sizes; windows that must agree
_OVERLAP = 0.3  # of boxes that YuNet takes for one
_MOST = 1000

Find = Callable[[Pixels], NDArray[np.float64]]
"""From pixels to boxes (n, 4): x, y, width, height in pixels."""


class FaceScorer(Settings):
    """Frontal faces by the Haar cascade that comes with OpenCV (Viola and Jones, CVPR 2001), or by YuNet.

    `path` is YuNet's ONNX file (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) as OpenCV's zoo publishes it,
    which also sees faces that are turned or small, and gives each a `score`; or another cascade's .xml. Pictures are seen with
    their longer side at `side` pixels at most; faces under `min_side` of them are not looked for.
    """

    path: str = ""
    side: int = Field(default=640, ge=32, le=8192)
    min_side: int = Field(default=24, ge=8)
    score: float = Field(default=0.8, gt=0, lt=1)

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
        """The `face_` columns of schemas/scores.sql."""
        return pa.schema([schemas.table("scores").field(name) for name in _COLUMNS])

    def file(self) -> Path:
        """The detector's file. Raises InputError where this OpenCV brings none."""
        if self.path:
            return Path(self.path).expanduser()
        found = Path(cv2.__file__).parent / "data" / _HAAR
        if not hasattr(cv2, "CascadeClassifier") or not found.is_file():
            raise InputError(f"OpenCV {cv2.__version__} has no cascades: name YuNet's file  faces.path=face_detection_yunet.onnx")
        return found

    def provenance(self) -> tuple[Model]:
        """See `curate.score.scorer.Weighted`."""
        return (Model.of("face_boxes", self.file()),)

    def identity(self) -> str:
        """Where the file lies does not matter, what it is does."""
        said = self.model_dump(mode="json", exclude={"path"})
        return identity_of("FaceScorer", self.version, {**said, "weights_sha256": self.provenance()[0].sha256})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Each decoding thread has a detector of its own: OpenCV's keep state between pictures."""
        self._detector()  # what is wrong with the file is said before the first picture
        own = threading.local()

        def find(pixels: Pixels) -> list[list[float]]:
            if not hasattr(own, "find"):
                own.find = self._detector()
            return self._boxes(own.find, pixels)

        yield Opened(find, self._score)

    def _boxes(self, find: Find, pixels: Pixels) -> list[list[float]]:
        """Left, top, right, bottom as fractions, cut at the rim, from top to bottom."""
        scale = min(1.0, self.side / max(pixels.shape[:2]))
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        seen = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        found = find(seen) if min(size) >= self.min_side else np.zeros((0, 4))
        corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1) / (size * 2)
        return sorted(np.clip(corners, 0, 1).tolist(), key=lambda box: (box[1], box[0], box[3], box[2]))

    def _detector(self) -> Find:
        file = self.file()
        try:
            return self._cascade(file) if file.suffix == ".xml" else self._yunet(file)
        except (cv2.error, SystemError):
            raise InputError(f"{file}: OpenCV reads it neither as a cascade (.xml) nor as YuNet (.onnx)") from None

    def _cascade(self, file: Path) -> Find:
        cascade = cv2.CascadeClassifier(str(file))
        if cascade.empty():
            raise InputError(f"{file}: no cascade that OpenCV can read")

        def find(pixels: Pixels) -> NDArray[np.float64]:
            grey = cv2.equalizeHist(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
            smallest = (self.min_side, self.min_side)
            return np.asarray(cascade.detectMultiScale(grey, _STEP, _NEIGHBOURS, minSize=smallest), np.float64).reshape(-1, 4)

        return find

    def _yunet(self, file: Path) -> Find:
        net: Any = cv2.FaceDetectorYN.create(str(file), "", (320, 320), self.score, _OVERLAP, _MOST)

        def find(pixels: Pixels) -> NDArray[np.float64]:
            net.setInputSize((pixels.shape[1], pixels.shape[0]))
            _, faces = net.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
            boxes = np.zeros((0, 4)) if faces is None else np.asarray(faces, np.float64)[:, :4]
            sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:].min(axis=1, initial=np.inf) >= self.min_side)
            return np.asarray(boxes[sound], np.float64)

        return find

    def _score(self, batch: Batch) -> Scored:
        found = [batch.observed[image] for image in batch.image.tolist()]
        lines = [{} if boxes is None else {"face_count": len(boxes), "face_boxes": boxes} for boxes in found]
        calls = sum(boxes is not None for boxes in batch.observed)
        return Scored(pa.RecordBatch.from_pylist(lines, schema=self.adds), model_calls=calls)
