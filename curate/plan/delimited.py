"""Readers of txt, csv and tsv: every physical record comes out, the unreadable ones marked as broken.

Quoting follows RFC 4180. A quoted field may run over lines; where quotes do not close within 1 MiB, close wrongly or
give another number of fields than the header, the first line alone is taken as it stands and reading goes on after it,
so one stray quote never swallows its neighbours.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import InputError
from curate.plan.block import Block, unique_names
from curate.plan.lines import text_blocks
from curate.plan.settings import InputSettings

QUOTED_BYTES = 1 << 20
RUN_LINES = 512
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://\S")
_HEADERLESS = {"cc3m": ("caption", "url"), "cc12m": ("url", "caption")}
Record = list[str] | None


def read_txt(stream: IO[bytes], name: str) -> Iterator[Block]:
    """One URL a line, in the column `url`; no captions."""
    first_row = 0
    for lines in text_blocks(stream, name):
        values = [None if line is None else [line.removesuffix("\r")] for line in lines]
        yield _block(first_row, ("url",), values, None)
        first_row += len(lines)


def read_delimited(stream: IO[bytes], name: str, format: str, settings: InputSettings) -> Iterator[Block]:
    """Blocks of a csv or tsv file; an empty file gives none, one with only a header a block without rows."""
    blocks = text_blocks(stream, name)
    first = next(blocks, None)
    if first is None:
        return
    delimiter = settings.delimiter or _delimiter(first, format)
    batches = _batches(_chain(first, blocks), delimiter)
    start = next(batches)
    _refuse_unreadable_start(start[0], name, settings)
    names, layout, has_header = _heading(start, settings)
    yield _block(0, names, start[1:] if has_header else start, layout)
    first_row = len(start) - has_header
    for records in batches:
        yield _block(first_row, names, records, layout)
        first_row += len(records)


def _refuse_unreadable_start(record: Record, name: str, settings: InputSettings) -> None:
    if record is None and settings.header is not False:
        raise InputError(f"{name}: its first line is no UTF-8 text, so its columns have no names: convert it, or set input.header=false")
    if record is not None and any("\r" in field for field in record):
        raise InputError(f"{name}: its first line has carriage returns inside: convert its line ends to line feeds")


def _chain(first: list[str | None], rest: Iterable[list[str | None]]) -> Iterator[list[str | None]]:
    yield first
    yield from rest


def _delimiter(lines: Sequence[str | None], format: str) -> str:
    """Tab for tsv; for csv the comma, unless the first line has none but another usual delimiter."""
    first = next((line for line in lines if line), "")
    others = [] if format == "tsv" or "," in first else [sign for sign in "\t;|" if sign in first]
    return others[0] if others else "\t" if format == "tsv" else ","


def _heading(records: Sequence[Record], settings: InputSettings) -> tuple[tuple[str, ...], str | None, bool]:
    """Column names, recognised headerless layout, and whether the first record is a header."""
    first = records[0] or []
    has_url = [bool(_URL.match(field)) for field in first]
    fixed = settings.preset if settings.preset in _HEADERLESS else None
    has_header = bool(first) and not any(has_url) if settings.header == "auto" else settings.header
    if has_header and not (fixed and settings.header == "auto"):
        return unique_names([field.strip() or f"column_{at}" for at, field in enumerate(first)]), None, True
    sample = next((record for record in records if record and any(map(_URL.match, record))), first)
    layout = fixed or _layout([bool(_URL.match(field)) for field in sample])
    if layout and len(sample) == 2:
        return _HEADERLESS[layout], layout, False
    names = ["url" if len(sample) == 1 else f"column_{at}" for at in range(max(1, len(sample)))]
    return tuple(names), None, False


def _layout(is_url: Sequence[bool]) -> str | None:
    return {(False, True): "cc3m", (True, False): "cc12m"}.get((is_url[0], is_url[1])) if len(is_url) == 2 else None


def _batches(blocks: Iterable[list[str | None]], delimiter: str) -> Iterator[list[Record]]:
    """Records of each block of lines; a record that is still open at the end of a block waits for the next one."""
    csv.field_size_limit(QUOTED_BYTES)  # the csv module knows only a process-wide limit, 128 KiB unless set
    waiting: list[str | None] = []
    width: int | None = None
    for lines in blocks:
        records, waiting = _parsed([*waiting, *lines], delimiter, width, at_end=False)
        width = _width(records, width)
        if records:
            yield records
    if waiting:
        yield _parsed(waiting, delimiter, width, at_end=True)[0]


def _width(records: Sequence[Record], known: int | None) -> int | None:
    return known if known is not None else next((len(record) for record in records if record is not None), None)


def _parsed(lines: list[str | None], delimiter: str, width: int | None, at_end: bool) -> tuple[list[Record], list[str | None]]:
    """Records of some lines, and the lines of a record that is still open."""
    records: list[Record] = []
    position = 0
    while position < len(lines):
        run = lines[position : position + RUN_LINES]
        simple = _one_a_line(run, delimiter, width)
        if simple is not None:
            records += simple
            position += len(run)
            continue
        end = position + len(run)
        while position < end:
            record, used = _record(lines, position, delimiter, width)
            if used == 0 and not at_end:
                return records, lines[position:]
            records.append(record if used else _bare(lines[position] or "", delimiter, width))
            position += max(used, 1)
            width = _width(records[-1:], width)
    return records, []


def _one_a_line(lines: Sequence[str | None], delimiter: str, width: int | None) -> list[Record] | None:
    """Records of lines that are one sound record each, nearly all of a real list; None when any is not."""
    try:
        records = list(csv.reader(lines, delimiter=delimiter, strict=True))  # type: ignore[arg-type]  # None raises csv.Error
    except csv.Error:
        return None
    return list(records) if len(records) == len(lines) and all(len(record) == width for record in records) else None


def _record(lines: Sequence[str | None], position: int, delimiter: str, width: int | None) -> tuple[Record, int]:
    """The record that begins at a line and how many lines it takes; 0 lines when it is still open."""
    line = lines[position]
    if line is None:
        return None, 1
    if '"' not in line:
        return line.removesuffix("\r").split(delimiter), 1
    return _quoted(lines, position, delimiter, width)


def _quoted(lines: Sequence[str | None], position: int, delimiter: str, width: int | None) -> tuple[Record, int]:
    """The record that begins at a line with quotes and how many lines it takes; 0 lines when it is still open."""
    used = size = 0

    def following() -> Iterator[str]:
        nonlocal used, size
        for at in range(position, len(lines)):
            line = lines[at]
            if line is None or size > QUOTED_BYTES:
                used = -1
                return
            used, size = used + 1, size + len(line)
            yield line + "\n"

    first = lines[position] or ""
    try:
        record = next(csv.reader(following(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        still_open = used > 0 and "unexpected end of data" in str(error)
        return (None, 0) if still_open else (_bare(first, delimiter, width), 1)
    except StopIteration:
        return _bare(first, delimiter, width), 1
    if used > 1 and width is not None and len(record) != width:
        return _bare(first, delimiter, width), 1
    return record, used


def _bare(line: str, delimiter: str, width: int | None) -> Record:
    """A line by itself: leniently unquoted when its quotes pair up, else as it stands; None when the width is wrong."""
    bare = line.removesuffix("\r")
    fields = bare.split(delimiter)
    if bare.count('"') % 2 == 0:
        with contextlib.suppress(csv.Error):
            fields = next(csv.reader([bare], delimiter=delimiter))
    return fields if width is None or len(fields) == width else None


def _block(first_row: int, names: Sequence[str], records: Sequence[Record], layout: str | None) -> Block:
    """A record with too many or too few fields is broken; an empty field is null."""
    width = len(names)
    blank = [""] * width
    broken = np.array([record is None or len(record) != width for record in records], dtype=np.bool_)
    sound = [blank if bad or record is None else record for record, bad in zip(records, broken, strict=True)]
    columns = {name: _texts(values) for name, values in zip(names, zip(*sound, strict=True) if sound else [()] * width, strict=True)}
    return Block(first_row, columns, broken, is_text=True, layout=layout)


def _texts(values: Iterable[str]) -> pa.Array:
    array = pa.array(values, pa.string())
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
