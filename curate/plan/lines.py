"""Lines of text from a byte stream, in blocks of bounded size; lines that are no text are kept as None."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO

from curate.errors import InputError

BLOCK_BYTES = 1 << 20
LINE_BYTES = 16 << 20
_UNREADABLE = b"\0"


def text_blocks(stream: IO[bytes], name: str) -> Iterator[list[str | None]]:
    """Lists of lines without their line feed; None where a line is not UTF-8, holds NUL or exceeds 16 MiB.

    A byte-order mark is dropped. Raises InputError for UTF-16 and UTF-32.
    """
    for lines in _byte_blocks(stream, name):
        yield _decoded(lines)


def _byte_blocks(stream: IO[bytes], name: str) -> Iterator[list[bytes]]:
    tail, skipping = _first_chunk(stream, name), False
    chunk = b""
    while True:
        pieces = (tail + chunk).split(b"\n")
        tail = pieces.pop()
        if skipping and pieces:
            pieces[0], skipping = _UNREADABLE, False
        if skipping or len(tail) > LINE_BYTES:
            tail, skipping = b"", True
        if pieces:
            yield pieces
        chunk = stream.read(BLOCK_BYTES)
        if not chunk:
            break
    if skipping or tail:
        yield [_UNREADABLE if skipping else tail]


def _first_chunk(stream: IO[bytes], name: str) -> bytes:
    chunk = stream.read(BLOCK_BYTES)
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or chunk[1:4:2] == b"\0\0":
        raise InputError(f"{name}: the text is UTF-16 or UTF-32: convert it to UTF-8")
    return chunk.removeprefix(codecs.BOM_UTF8)


def _decoded(lines: list[bytes]) -> list[str | None]:
    joined = b"\n".join(lines)
    if b"\0" not in joined:
        try:
            return list(joined.decode().split("\n"))
        except UnicodeDecodeError:
            pass
    return [_one_line(line) for line in lines]


def _one_line(line: bytes) -> str | None:
    try:
        return None if b"\0" in line else line.decode()
    except UnicodeDecodeError:
        return None
