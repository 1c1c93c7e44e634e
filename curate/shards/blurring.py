"""Boxes that are blurred while a subset is packed: which column holds them, and a picture encoded anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import AccountingError, UsageError
from curate.media.blur import BadBoxes, blur, checked_box
from curate.media.image import ImageSettings, MediaError, decode_rgb, encode
from curate.schema import nearest
from curate.shards.sources import Sources

Digests = npt.NDArray[np.uint8]
"""sha256 of packed images by place, shape (n, 32); zeros where the fetched bytes were packed."""


@dataclass(frozen=True)
class Blur:
    """Column of boxes (left, top, right, bottom as fractions), and the quality of what is encoded anew."""

    column: str
    quality: int

    def __call__(self, image: bytes, line: Mapping[str, Any]) -> bytes:
        """The image with its boxes made unrecognisable, in its own format; the very bytes where there is none."""
        boxes = tuple(map(checked_box, line[self.column]))
        if not boxes:
            return image
        try:
            return encode(blur(decode_rgb(image), boxes), ImageSettings(format=line["format"], quality=self.quality))
        except MediaError as error:
            raise AccountingError(f"part {line['part']}, row {line['row']} cannot be blurred: {error.reason}") from None


def boxes_column(sources: Sources, scores: Mapping[str, Sequence[str]], column: str | None) -> str | None:
    """`column`, checked. Raises UsageError, one line, when no score table that the subset pins has such boxes."""
    if column is None:
        return None
    for table, names in scores.items():
        if column in names:
            schema = sources.tables[table].schema
            kind = None if schema is None else schema.field(column).type
            if kind is not None and pa.types.is_list(kind) and pa.types.is_list(kind.value_type):
                return column
            raise UsageError(f"blur={column}: a box is a list of four numbers, and {table}.{column} holds {kind}")
    known = [name for names in scores.values() for name in names if name.endswith("_boxes")]
    raise UsageError(
        f"blur={column}: the subset knows no such boxes{nearest(column, known)}: run  curate score POOL --name faces faces.side=640"
        " image=null caption=null clip=null,  then apply the policy again"
    )


def refuse_unknown(data: pa.Table, column: str | None, part: int) -> None:
    """Nothing is packed unblurred because nobody looked, or looked in pixels: raises UsageError for a kept row without sound boxes."""
    if column is None:
        return
    if data[column].null_count:
        raise UsageError(
            f"blur={column}: {data[column].null_count:,} kept rows of part {part} have no boxes, not even none: score them first,"
            f" or apply a policy that drops what has no {column}"
        )
    for row, boxes in zip(data["row"].to_pylist(), data[column].to_pylist(), strict=True):
        try:
            _ = [checked_box(box) for box in boxes]
        except BadBoxes as error:
            raise UsageError(f"blur={column}: part {part}, row {row}: {error}") from None
