"""Readers of json (one array of objects) and jsonl (one object a line); what is no object comes out as a broken record."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from curate.errors import InputError
from curate.plan.block import Block
from curate.plan.lines import BLOCK_BYTES, LINE_BYTES, text_blocks

MAX_COLUMNS = 1000
_STRUCTURE = re.compile(r'["\\{}\[\],]')
_BLANKS = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
_SAFE_INTEGER = 1 << 53
Object = dict[str, Any] | None


def read_jsonl(stream: IO[bytes], name: str) -> Iterator[Block]:
    """Blocks of a file with one JSON object a line; every line is a record, a blank one a broken record."""
    first_row = 0
    for lines in text_blocks(stream, name):
        yield _block(first_row, [_object(line) for line in lines], name)
        first_row += len(lines)


def read_json(stream: IO[bytes], name: str) -> Iterator[Block]:
    """Blocks of a JSON array of objects; a file that starts with an object on its first line is read as jsonl."""
    text = io.TextIOWrapper(io.BufferedReader(_Raw(stream)), encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = text.read(BLOCK_BYTES)
    start = head.lstrip()[:1]
    if start == "{" and _object(head.lstrip().split("\n", 1)[0]) is not None:
        yield from read_jsonl(_Rest(head, text), name)
    elif start == "[":
        yield from _array_blocks(head.lstrip()[1:], text, name)
    elif head.strip():
        raise InputError(f"{name}: a json list must be an array of objects, [{{…}}, …]; for one object a line set input.format=jsonl")


class _Raw(io.RawIOBase):
    """A forward-only stream in the shape that `io.BufferedReader` wants."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Rest(io.BytesIO):
    """Text that was read ahead, then the rest of its stream, as bytes again."""

    def __init__(self, head: str, text: io.TextIOWrapper) -> None:
        super().__init__()
        self._head, self._text = head, text

    def read(self, size: int | None = -1) -> bytes:
        found, self._head = self._head or self._text.read(size), ""
        return found.encode("utf-8", "surrogateescape")


def _array_blocks(head: str, text: io.TextIOWrapper, name: str) -> Iterator[Block]:
    first_row, tail, is_closed, more = 0, head, False, "["
    while more and not is_closed:
        objects, tail, is_closed = _elements(tail, exhausted=False)
        if not is_closed:
            more = text.read(BLOCK_BYTES)
            if not more:
                objects += _elements(tail, exhausted=True)[0]
            tail += more
        if objects:
            yield _block(first_row, objects, name)
            first_row += len(objects)
    if is_closed and (tail + text.read(BLOCK_BYTES)).strip():
        raise InputError(f"{name}: there is more text after the end of the array: put all rows into one array, or one object a line")


def _elements(text: str, exhausted: bool) -> tuple[list[Object], str, bool]:
    """Elements that lie whole in `text`, the text after them, and whether the array was closed.

    A damaged element is broken up to the comma that ends it. With `exhausted`, an unclosed tail is one broken element.
    """
    objects: list[Object] = []
    position = 0
    while True:
        position = _after_blanks(text, position)
        if position == len(text):
            return objects, "", False
        if text[position] == "]":
            return objects, text[position + 1 :], True
        value, end = _element(text, position)
        if end < 0:
            return _open_tail(objects, text[position:], exhausted)
        objects.append(_checked(value, text[position:end]))
        position = end


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _element(text: str, position: int) -> tuple[object, int]:
    """The element at `position` (None when it is damaged) and where it ends; -1 when its end is not in `text`."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, _element_end(text, position)
    is_delimited = _after_blanks(text, end) > end or text[end : end + 1] == "]"
    return (value, end) if is_delimited else (None, _element_end(text, position))


def _open_tail(objects: list[Object], tail: str, exhausted: bool) -> tuple[list[Object], str, bool]:
    if exhausted:
        return [*objects, None], "", True
    if len(tail) > LINE_BYTES:
        raise InputError(f"an element of the array exceeds {LINE_BYTES >> 20} MiB or is never closed: {tail[:60]!r}")
    return objects, tail, False


def _element_end(text: str, position: int) -> int:
    """Where the damaged element at `position` ends (its comma or the array's bracket), or -1 when that is not here."""
    depth, in_string, skip = 0, False, -1
    for found in _STRUCTURE.finditer(text, position):
        sign, at = found.group(), found.start()
        if at == skip:
            continue
        if in_string:
            skip = at + 1 if sign == "\\" else skip
            in_string = sign != '"'
        elif sign == '"':
            in_string = True
        elif sign in "{[":
            depth += 1
        elif depth == 0 and sign in ",]":
            return at
        elif sign in "}]":
            depth -= 1
    return -1


def _object(line: str | None) -> Object:
    if line is None:
        return None
    try:
        return _checked(json.loads(line), line)
    except (ValueError, RecursionError):
        return None


def _checked(value: object, text: str) -> Object:
    """The value when it is an object of sound text; lone surrogates and undecodable bytes are not."""
    if not isinstance(value, dict):
        return None
    try:
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return None
    return value


def _block(first_row: int, objects: Sequence[Object], name: str) -> Block:
    names = list(dict.fromkeys(key for found in objects if found is not None for key in found))
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{name}: more than {MAX_COLUMNS} different keys near row {first_row}: its objects are not rows of one list")
    columns = {key: natural([None if found is None else found.get(key) for found in objects]) for key in names}
    return Block(first_row, columns, np.array([found is None for found in objects], dtype=np.bool_))


def natural(values: Sequence[Any]) -> pa.Array:
    """JSON values as the narrowest portable column: bool, int64, float64, else text (nested values as JSON)."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_() if kinds else pa.null())
    if kinds == {int} and all(value is None or -(1 << 63) <= value < 1 << 63 for value in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float} and all(not isinstance(value, int) or abs(value) <= _SAFE_INTEGER for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None or isinstance(value, str) else json_text(value) for value in values], pa.string())


def json_text(value: Any) -> str:
    """JSON of a value; what JSON does not know is written as text."""
    return json.dumps(value, ensure_ascii=False, default=str)
