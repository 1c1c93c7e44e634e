"""What a list says about the file behind a URL: hashes that it promises, and boxes to blur."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import pyarrow as pa

from curate.errors import InputError
from curate.schema import SOURCE_PREFIX, nearest

AUTOMATIC_BOXES = ("boxes", "face_bboxes")
_MAX_CHARACTERS = 48 << 10  # a wish goes to the codec in one message; about 600 boxes
_MAX_STRANGE_CHARACTERS = 200  # what is longer, or not ASCII, is no hash and no list of boxes: enough to be refused


@dataclass(frozen=True)
class Wish:
    """Texts as the list has them, checked by nobody yet; None where it has none.

    `sha256`, `md5` and `pdq` in hex; `phash` as 16 hex digits of the 64-bit hash of table `scores`; `boxes` a JSON
    list of [left, top, right, bottom] in fractions of width and height.
    """

    sha256: str | None = None
    md5: str | None = None
    pdq: str | None = None
    phash: str | None = None
    boxes: str | None = None

    @property
    def promised_sha256(self) -> str | None:
        """In lower case; None when it is no sha256."""
        return _hex(self.sha256, 64)

    @property
    def promised_md5(self) -> str | None:
        """In lower case; None when it is no md5."""
        return _hex(self.md5, 32)

    @property
    def described_pdq(self) -> bytes | None:
        """32 bytes; None when it is no PDQ hash."""
        text = _hex(self.pdq, 64)
        return bytes.fromhex(text) if text else None

    @property
    def described_phash(self) -> int | None:
        """Unsigned 64 bits; None when it is no such hash."""
        text = _hex(self.phash, 16)
        return int(text, 16) if text else None


EMPTY = Wish()
WISH = pa.struct([(field.name, pa.string()) for field in fields(Wish)])
"""Type of the column `wish` of what goes to the fetch stage; null for a row of which the list says nothing."""


def _hex(text: str | None, digits: int) -> str | None:
    found = (text or "").strip().lower()
    return found if len(found) == digits and re.fullmatch("[0-9a-f]+", found) else None


def wish_columns(names: Sequence[str], blur_column: str | None, verify_hash: str) -> dict[str, str]:
    """Which columns of `rows` hold what: field of Wish -> column.

    Raises InputError when boxes or hashes were asked for that the list does not have: nothing is to be stored unblurred
    or unchecked because of a misspelt name.
    """
    known = {name.removeprefix(SOURCE_PREFIX).lower(): name for name in names if name.startswith(SOURCE_PREFIX)}
    found = {field.name: known[field.name] for field in fields(Wish) if field.name in known}
    if verify_hash == "strict" and not {"sha256", "md5"} & set(found):
        raise InputError("fetch.verify_hash=strict needs hashes: name the list's column with  input.columns.sha256=NAME  (or md5)")
    found.pop("boxes", None)
    if blur_column == "auto":
        column = next((known[name] for name in AUTOMATIC_BOXES if name in known), None)
        if column is not None:
            found["boxes"] = column
    elif blur_column is not None:
        if blur_column.lower() not in known:
            offer = nearest(blur_column.lower(), list(known))
            raise InputError(f"fetch.blur_column={blur_column}: the list has no such column, so nothing would be blurred{offer}")
        found["boxes"] = known[blur_column.lower()]
    return found


def read_wishes(table: pa.Table, columns: dict[str, str]) -> Iterator[Wish]:
    """What the list says about each row of `table`."""
    texts = {field: [_text(value) for value in table.column(name).to_pylist()] for field, name in columns.items()}
    for row in range(table.num_rows):
        said = {field: _capped(field, texts[field][row]) for field in texts}
        yield Wish(**said) if any(value is not None for value in said.values()) else EMPTY


def _capped(field: str, text: str | None) -> str | None:
    """Boxes may be many; what is longer than any hash is none."""
    return text if text is None or field == "boxes" else text[: 2 * _MAX_STRANGE_CHARACTERS]


def _text(value: object) -> str | None:
    """A value of whatever type the list gave its column: bytes are hashes, 64-bit numbers perceptual ones, lists boxes."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value[:_MAX_STRANGE_CHARACTERS].hex()
    if isinstance(value, int):
        return f"{value & (1 << 64) - 1:016x}"
    text = value.strip() if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_CHARACTERS and text.isascii() else text[:_MAX_STRANGE_CHARACTERS]


def wishes_of(batch: pa.RecordBatch) -> list[Wish]:
    """The column `wish` of a batch; empty wishes where the batch has none."""
    if "wish" not in batch.schema.names:
        return [EMPTY] * batch.num_rows
    return [EMPTY if value is None else Wish(**value) for value in batch.column("wish").to_pylist()]
