"""Text inside pictures: where it stands, and how much of the picture it covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate import schema as schemas
from curate.errors import InputError
from curate.score.onnx import OnnxModel, load, packaged
from curate.score.scorer import Batch, Opened, Pixels, Scored
from curate.score.weights import Model
from curate.settings import Settings
from curate.stage import identity_of

Rectangle = tuple[tuple[float, float], tuple[float, float], float]
"""Middle, (width, height) and angle in degrees, as OpenCV gives rectangles that lie askew."""

_COLUMNS = ("text_area", "text_count", "text_boxes")
_STRIDE = 32  # sides of what the network sees are multiples of it
_THINNEST = 3  # pixels of its map
_MOST = 1000  # regions of one picture
_LINE = 48  # pixels of height of a line as the reader wants it
_LINE_WIDTHS = (320, 1600)  # shorter lines are padded, longer ones squeezed
_SURE = 0.5  # mean probability of what was read, rapidocr's own threshold


class TextScorer(Settings):
    """A differentiable-binarization detector (Liao et al., arXiv 1911.08947), by itself PP-OCR's, which comes with rapidocr.

    `path` is another ONNX file of the kind: picture (1, 3, height, width), blue first, -1 to 1, in; a map of probabilities out.
    Pictures are seen with their longer side at `side` pixels. A region is where the map exceeds `pixel`; it counts with a
    mean of at least `region`, and is grown by `grow` x its area / its circumference, since the network was taught shrunk ones.
    A detector takes any single shape for a letter, so a region must hold `letters` characters that PP-OCR's recogniser reads
    (`reader`: another file like it); with 0 the detector alone decides, as it must for scripts that nobody reads here.
    """

    path: str = ""
    reader: str = ""
    letters: int = Field(default=2, ge=0)
    side: int = Field(default=512, ge=64, le=4096)
    pixel: float = Field(default=0.3, gt=0, lt=1)
    region: float = Field(default=0.5, gt=0, lt=1)
    grow: float = Field(default=1.6, ge=0, le=10)

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
        """The `text_` columns of schemas/scores.sql."""
        return pa.schema([schemas.table("scores").field(name) for name in _COLUMNS])

    def file(self) -> Path:
        """The detector's file. Raises MissingExtra or InputError."""
        return Path(self.path).expanduser() if self.path else packaged("rapidocr", "*det*.onnx")

    def reader_file(self) -> Path | None:
        """The recogniser's, where one is asked. Raises MissingExtra or InputError."""
        if not self.letters:
            return None
        return Path(self.reader).expanduser() if self.reader else packaged("rapidocr", "*rec*.onnx")

    def provenance(self) -> tuple[Model, ...]:
        """See `curate.score.scorer.Weighted`. Raises MissingExtra or InputError."""
        reader = self.reader_file()
        return (Model.of("text_area", self.file()), *([Model.of("text_area_reader", reader)] if reader else []))

    def identity(self) -> str:
        """Where the files lie does not matter, what they are does."""
        said = self.model_dump(mode="json", exclude={"path", "reader"})
        return identity_of("TextScorer", self.version, {**said, "weights_sha256": [model.sha256 for model in self.provenance()]})

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Loads detector and reader, which run on the threads that decode."""
        reader = self.reader_file()
        yield Opened(partial(self.find, load(self.file()), None if reader is None else load(reader)), self._score)

    def find(self, model: OnnxModel, reader: OnnxModel | None, pixels: Pixels) -> Text:
        """Where text stands in one picture. Raises InputError when the model gives no map of the picture's size."""
        size = _seen_size(pixels.shape[1], pixels.shape[0], self.side)
        seen = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        blue_first = seen[:, :, ::-1].astype(np.float32) / 127.5 - 1
        found = model(blue_first.transpose(2, 0, 1)[None])
        if found.shape != (1, 1, *seen.shape[:2]):
            raise InputError(f"{model.path}: gives {found.shape} for a picture of {seen.shape[:2]}: no detector of text regions")
        shapes = regions(found[0, 0], self.pixel, self.region, self.grow)
        if reader is not None:
            shapes = [shape for shape in shapes if letters_read(reader, seen, shape) >= self.letters]
        return _text(shapes, seen.shape[:2])

    def _score(self, batch: Batch) -> Scored:
        found: list[Text | None] = [batch.observed[image] for image in batch.image.tolist()]
        lines = [
            {} if text is None else {"text_area": text.area, "text_count": len(text.boxes), "text_boxes": text.boxes} for text in found
        ]
        calls = sum(text is not None for text in batch.observed)
        return Scored(pa.RecordBatch.from_pylist(lines, schema=self.adds), model_calls=calls)


@dataclass(frozen=True)
class Text:
    """Of one picture: the share of it that text covers, and upright boxes (left, top, right, bottom as fractions)."""

    area: float
    boxes: list[list[float]]


def regions(probability: NDArray[np.float32], pixel: float, region: float, grow: float) -> list[Rectangle]:
    """From a map of probabilities (height, width) to regions: section 3.5 of arXiv 1911.08947, with rectangles at any angle.

    A rectangle grown by d on all sides is what the paper's polygon offset by d = area x `grow` / circumference comes to.
    """
    # Two by two pixels are joined as PP-OCR does it: letters that a line of the map keeps apart are one word.
    marked = cv2.dilate((probability > pixel).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(marked, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours[:_MOST]:
        (x, y), (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < _THINNEST or _mean_inside(probability, _corners(((x, y), (width, height), angle))) < region:
            continue
        by = grow * width * height / (2 * (width + height))
        found.append(((x, y), (width + 2 * by, height + 2 * by), angle))
    return found


def letters_read(reader: OnnxModel, pixels: Pixels, shape: Rectangle) -> int:
    """Characters that a recogniser trained with CTC reads in a region with a mean probability of a half or more, else 0."""
    line = _line(pixels, shape)
    width = int(np.clip(round(_LINE * line.shape[1] / line.shape[0]), 1, _LINE_WIDTHS[1]))
    seen = np.zeros((_LINE, max(width, _LINE_WIDTHS[0]), 3), np.float32)
    seen[:, :width] = cv2.resize(line, (width, _LINE))[:, :, ::-1].astype(np.float32) / 127.5 - 1
    steps = reader(seen.transpose(2, 0, 1)[None])
    if steps.ndim != 3:
        raise InputError(f"{reader.path}: gives {steps.shape} for a line of text: no recogniser with one character a step")
    best, sure = steps[0].argmax(axis=1), steps[0].max(axis=1)
    read = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))  # 0 stands between characters
    return int(read.sum()) if read.any() and sure[read].mean() >= _SURE else 0


def _line(pixels: Pixels, shape: Rectangle) -> Pixels:
    """A region turned so that its text, which runs along its longer side, is level; edges are repeated beyond the rim."""
    middle, (width, height), angle = shape
    if angle > 45:  # OpenCV gives 0 to 90 degrees
        width, height, angle = height, width, angle - 90
    if height > 1.5 * width:
        width, height, angle = height, width, angle - 90
    turn = np.asarray(cv2.getRotationMatrix2D(middle, angle, 1), np.float64)
    turn[:, 2] += np.array([width / 2 - middle[0], height / 2 - middle[1]])
    size = (max(1, round(width)), max(1, round(height)))
    return np.asarray(cv2.warpAffine(pixels, turn, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _text(shapes: Sequence[Rectangle], size: tuple[int, ...]) -> Text:
    """Boxes from top to bottom, and the share of (height, width) that the regions cover together."""
    covered = np.zeros(size, np.uint8)
    corners = [_corners(shape) for shape in shapes]
    for each in corners:
        cv2.fillPoly(covered, [np.rint(each).astype(np.int32)], 1)
    return Text(float(covered.mean()), sorted((_upright(each, size) for each in corners), key=lambda box: (box[1], box[0])))


def _corners(shape: Rectangle) -> NDArray[np.float32]:
    """Shape (4, 2): x and y of each."""
    return np.asarray(cv2.boxPoints(shape), np.float32)


def _mean_inside(probability: NDArray[np.float32], corners: NDArray[np.float32]) -> float:
    """Mean of the map inside a rectangle."""
    whole = np.rint(corners).astype(np.int32)
    left, top = np.maximum(whole.min(axis=0), 0)
    right, bottom = whole.max(axis=0) + 1
    window = probability[top:bottom, left:right]
    inside = np.zeros(window.shape, np.uint8)
    cv2.fillPoly(inside, [whole - (left, top)], 1)
    return float(cv2.mean(window, inside)[0])


def _upright(corners: NDArray[np.float32], shape: tuple[int, ...]) -> list[float]:
    """The box around a rectangle, as fractions, cut at the rim."""
    fractions = np.clip(corners / (shape[1], shape[0]), 0, 1)
    return [*fractions.min(axis=0).tolist(), *fractions.max(axis=0).tolist()]


def _seen_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with the longer side at `side`, both multiples of what the network needs."""
    scale = side / max(width, height)
    return max(_STRIDE, round(width * scale / _STRIDE) * _STRIDE), max(_STRIDE, round(height * scale / _STRIDE) * _STRIDE)
