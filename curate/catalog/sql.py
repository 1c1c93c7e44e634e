"""Questions in SQL and their answers as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.catalog.views import connect, explain_error, one_select
from curate.errors import UsageError
from curate.schema import nearest
from curate.store import Pool
from curate.uids import are_uids, pairs_of

Format = Literal["table", "csv", "json", "parquet", "npy"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet", "npy")
_FILES = ("parquet", "npy")  # no text
CELL_CHARACTERS = 80
TABLE_LINES = 200


def query(pool: Pool, sql: str, policy: str | None = None) -> pa.Table:
    """The answer to one SELECT over the pool's views (`samples`, `rows`, `fetched`, …; `SHOW TABLES` lists them).

    Reads the pool and nothing else. Raises UsageError, one line, with the nearest column or table where one is misspelt.
    """
    with connect(pool, policy) as connection:
        statement = one_select(connection, sql)
        try:
            return connection.sql(statement).to_arrow_table()
        except duckdb.Error as error:
            raise explain_error(connection, error) from None


def render(answer: pa.Table, form: Format = "table", lines: int = TABLE_LINES) -> str:
    """The answer as text: an aligned table cut at `lines` lines, or whole as CSV or JSON. The others need `write`."""
    if form == "table":
        return _as_table(answer, lines)
    if form == "csv":
        return _as_csv(answer).decode()
    if form == "json":
        return _as_json(answer)
    raise UsageError(f"format {form!r} is no text: give a file to write to" if form in _FILES else _unknown(form))


def write(answer: pa.Table, path: Path, form: Format) -> None:
    """Writes the whole answer to a file; as `npy`, uids in DataComp's form. Raises UsageError when the folder does not exist."""
    if form not in FORMATS:
        raise UsageError(_unknown(form))
    try:
        if form == "parquet":
            pq.write_table(answer, path, compression="zstd")
        elif form == "npy":
            uids = _uids(answer)
            with path.open("wb") as stream:  # np.save would give a path a suffix
                np.save(stream, uids)
        else:
            path.write_bytes(render(answer, form, lines=answer.num_rows).encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def _uids(answer: pa.Table) -> NDArray[np.void]:
    """The one column's uids, sorted."""
    if answer.num_columns != 1:
        raise UsageError(f"a .npy holds one column of uids, not {answer.num_columns}: SELECT uid FROM samples WHERE keep")
    texts = answer.column(0).cast(pa.string()).combine_chunks()
    wrong = np.flatnonzero(~are_uids(texts))
    if len(wrong):
        raise UsageError(f"column {answer.column_names[0]!r}, row {wrong[0]}: {texts[int(wrong[0])].as_py()!r} is no uid of 32 hex digits")
    return np.sort(pairs_of(texts))


def _unknown(form: str) -> str:
    return f"format {form!r} is not one of {', '.join(FORMATS)}{nearest(form, list(FORMATS))}"


# -- terminals


def printable(text: str) -> str:
    """`text` with everything escaped that could drive a terminal or turn a line around: control, format and bidi characters."""
    return "".join(character if _is_harmless(character) else _escape(character) for character in text)


def _is_harmless(character: str) -> bool:
    """Zero-width joiners (U+200C, U+200D) hold scripts and emoji together and move nothing."""
    return character.isprintable() or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    code = ord(character)
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes: wide characters two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# -- an aligned table


def _as_table(answer: pa.Table, lines: int) -> str:
    shown = answer.slice(0, lines)
    columns = [[printable(name), *map(_cell, column.to_pylist())] for name, column in zip(shown.column_names, shown.columns, strict=True)]
    right = [_is_number(field.type) for field in shown.schema]
    widths = [max(map(_width, column)) for column in columns]
    text = [_line(cells, widths, right) for cells in zip(*columns, strict=True)]
    rule = "  ".join("─" * width for width in widths)
    hidden = answer.num_rows - shown.num_rows
    note = [f"… {hidden:,} more lines (csv, json and parquet hold all)"] if hidden else []
    return "\n".join([*text[:1], rule, *text[1:], *note]) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, is_right in zip(cells, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if is_right else cell + space)
    return "  ".join(padded).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return "∅"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = printable(json.dumps(_plain(value), ensure_ascii=False) if isinstance(value, list | dict) else str(value))
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


# -- CSV and JSON


def _as_csv(answer: pa.Table) -> bytes:
    """Values as they are, quoted where needed; lists and structs as JSON."""
    columns = [column if _is_flat(column.type) else pa.array(map(_json_text, column.to_pylist()), pa.string()) for column in answer.columns]
    stream = io.BytesIO()
    pacsv.write_csv(pa.table(columns, names=answer.column_names), stream)
    return stream.getvalue()


def _is_flat(kind: pa.DataType) -> bool:
    odd = (pa.types.is_nested, pa.types.is_binary, pa.types.is_dictionary, pa.types.is_interval)
    return not any(is_odd(kind) for is_odd in odd)


def _json_text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)


def _as_json(answer: pa.Table) -> str:
    """A JSON array, one object a line; what would upset a terminal is escaped the way JSON does."""
    lines = [json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) for line in answer.to_pylist()]
    body = ",\n ".join(lines)
    return "[" + "".join(c if c == "\n" or _is_harmless(c) else _json_escape(c) for c in body) + "]\n"


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if not character.isascii() else f"\\u{ord(character):04x}"


def _plain(value: object) -> object:
    """`value` as JSON can say it: NaN and infinities become null, bytes hexadecimal, times ISO 8601."""
    if isinstance(value, decimal.Decimal):  # sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)
