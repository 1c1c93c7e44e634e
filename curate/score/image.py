"""Numbers about the picture itself: sizes, entropy, sharpness, plainness, perceptual hash, colour grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import pyarrow as pa

from curate import schema as schemas
from curate.media.image import grey_entropy, phash, plain_share, sharpness
from curate.score.scorer import ROW_COLUMNS, Batch, Opened, Pixels, Scored
from curate.settings import Settings
from curate.stage import identity_of

GRID_SIDE = 8
_COLUMNS = ("image_min_side", "image_max_side", "image_aspect", "image_entropy", "image_sharpness", "image_plain", "phash", "colour_grid")


class ImageScorer(Settings):
    """Sizes are those of the original; the rest is of the stored picture."""

    @property
    def version(self) -> int:
        """See `Scorer`."""
        return 3  # since there are sharpness and plainness, and cells that do not depend on size

    @property
    def needs(self) -> pa.Schema:
        """Size of the original in pixels."""
        return pa.schema([ROW_COLUMNS.field("original_width"), ROW_COLUMNS.field("original_height")])

    @property
    def adds(self) -> pa.Schema:
        """The `image_` columns, `phash` and `colour_grid` of schemas/scores.sql."""
        return pa.schema([schemas.table("scores").field(name) for name in _COLUMNS])

    def identity(self) -> str:
        """See `Scorer`."""
        return identity_of("ImageScorer", self.version, self.model_dump(mode="json"))

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Nothing to build."""
        yield Opened(observe, self._score)

    def _score(self, batch: Batch) -> Scored:
        sizes = zip(batch.rows.column("original_width").to_pylist(), batch.rows.column("original_height").to_pylist(), strict=True)
        lines = [_line(size, batch.observed[image]) for size, image in zip(sizes, batch.image.tolist(), strict=True)]
        return Scored(pa.RecordBatch.from_pylist(lines, schema=self.adds))


@dataclass(frozen=True)
class Look:
    """What is kept of one picture."""

    width: int
    height: int
    entropy: float
    sharpness: float
    plain: float
    phash: int
    colour_grid: bytes


def observe(pixels: Pixels) -> Look:
    """Describes one stored picture."""
    height, width = pixels.shape[:2]
    return Look(width, height, grey_entropy(pixels), sharpness(pixels), plain_share(pixels), phash(pixels), colour_grid(pixels))


def colour_grid(pixels: Pixels) -> bytes:
    """Mean colours of 8 x 8 cells, row by row, three bytes each: 192 bytes. A pixel on a border counts for both sides in proportion,
    so that a picture at half its size has the same cells."""
    return bytes(cv2.resize(pixels, (GRID_SIDE, GRID_SIDE), interpolation=cv2.INTER_AREA).data)


def _line(size: tuple[int | None, int | None], look: Look | None) -> dict[str, object]:
    """One row's values; the stored size stands in where the original's is unknown."""
    width, height = (size[0] or (look.width if look else None)), (size[1] or (look.height if look else None))
    line: dict[str, object] = {}
    if width and height:
        low, high = sorted((width, height))
        line |= {"image_min_side": low, "image_max_side": high, "image_aspect": high / low}
    if look is not None:
        line |= {"image_entropy": look.entropy, "image_sharpness": look.sharpness, "image_plain": look.plain}
        line |= {"phash": look.phash, "colour_grid": look.colour_grid}
    return line
