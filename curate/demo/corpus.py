"""A corpus on disk: what its URL list says, what the server answers, and what is known to be true about each row.

A corpus is a folder: `rows.parquet` (the list: address, caption, further columns), `truth.parquet` (one line per row
of the list, never shown to the engine), `answers.parquet` (path → what the server does) and `bodies.bin` (all bytes).
An address is a path to be served (`/scenes/…`) or, for rows that must never be requested, a whole URL.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import UsageError

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) while something long goes on; total is 0 where it is not known."""


def silent(what: str, done: int, total: int) -> None:
    """The `Progress` of those who do not want to know."""


@dataclass(frozen=True)
class Answer:
    """What the server does when one path is asked for; `behaviour` is one of `curate.demo.behaviours.BEHAVIOURS`.

    `offset` and `size_bytes` say where the body lies in `bodies.bin`. With a `first_status` the first request gets that
    status and no body, and only later ones the rest (where the server counts attempts).
    """

    behaviour: str = "ok"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    offset: int = 0
    size_bytes: int = 0
    first_status: int = 0


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder.

    With a `fraction` below 1 the list keeps that part of its addresses, chosen by hash (so smaller lists are parts of
    larger ones), and every row that has an expected reason; the server answers for all of them.
    """

    folder: Path
    fraction: float = 1.0

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Raises UsageError when the folder holds no corpus."""
        if not (folder / "answers.parquet").exists():
            raise UsageError(f"{folder} holds no demo corpus")
        return cls(folder)

    def rows(self) -> pa.Table:
        """The list: `address`, `caption` and the corpus's own columns."""
        return self._thinned(pq.read_table(self.folder / "rows.parquet"))

    def truth(self) -> pa.Table:
        """One line per line of `rows()`, in the same order."""
        return self._thinned(pq.read_table(self.folder / "truth.parquet"))

    def _thinned(self, table: pa.Table) -> pa.Table:
        if self.fraction >= 1:
            return table
        truth = pq.read_table(self.folder / "truth.parquet", columns=["address", "expected_reason"])
        chosen = [_share(address) < self.fraction for address in truth.column("address").to_pylist()]
        return table.filter(pc.or_(pa.array(chosen), truth.column("expected_reason").is_valid()))

    def answers(self) -> dict[str, Answer]:
        """What the server does, by path (not percent-encoded)."""
        table = pq.read_table(self.folder / "answers.parquet")
        return {line.pop("path"): _answer(line) for line in table.to_pylist()}

    def bodies(self) -> mmap.mmap | bytes:
        """All bodies as one read-only buffer."""
        with open(self.folder / "bodies.bin", "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""

    def read(self, path: str) -> tuple[Answer, bytes]:
        """The answer to one path and its whole body; UsageError when there is no such path."""
        answer = self.answers().get(unquote(path))
        if answer is None:
            raise UsageError(f"{self.folder} has no answer for {path}")
        with open(self.folder / "bodies.bin", "rb") as file:
            file.seek(answer.offset)
            return answer, file.read(answer.size_bytes)


def _share(address: str) -> float:
    """A number in [0, 1) that depends on the address alone."""
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:6], "big") / (1 << 48)


def _answer(line: dict[str, Any]) -> Answer:
    headers = tuple((name, value) for name, value in json.loads(line.pop("headers")))
    return Answer(headers=headers, **line)


@dataclass
class CorpusWriter:
    """Writes a corpus into a temporary folder beside `folder`; it gets its name only when all went well."""

    folder: Path
    _answers: list[dict[str, Any]] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _truth: list[dict[str, Any]] = field(default_factory=list)
    _size_bytes: int = 0

    def __enter__(self) -> CorpusWriter:
        self._temporary = self.folder.with_name(f"{self.folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        self._file = open(self._temporary / "bodies.bin", "wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._finish()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def body(self, data: bytes) -> tuple[int, int]:
        """Stores bytes; returns (offset, size in bytes)."""
        offset = self._size_bytes
        self._file.write(data)
        self._size_bytes += len(data)
        return offset, len(data)

    def answer(self, path: str, answer: Answer) -> None:
        """Says what the server does for `path`."""
        self._answers.append({**asdict(answer), "path": unquote(path), "headers": json.dumps(answer.headers)})

    def row(self, address: str, caption: str | None, columns: Mapping[str, Any], truth: Mapping[str, Any]) -> None:
        """Adds one line to the list, and what is true about it."""
        self._rows.append({"address": address, "caption": caption, **columns})
        self._truth.append({"address": address, "caption": caption, **truth})

    def _finish(self) -> None:
        answers = pa.Table.from_pylist(self._answers, schema=_ANSWERS)
        pq.write_table(answers, self._temporary / "answers.parquet")
        pq.write_table(_table(self._rows), self._temporary / "rows.parquet")
        pq.write_table(_table(self._truth), self._temporary / "truth.parquet")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._temporary.rename(self.folder)


def _table(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Lines as a table; a column that only some lines have is null in the others."""
    names = dict.fromkeys(["address", "caption", *(name for line in lines for name in line)])
    return pa.table({name: [line.get(name) for line in lines] for name in names})


_ANSWERS = pa.schema(
    [
        ("path", pa.string()),
        ("behaviour", pa.string()),
        ("status", pa.int32()),
        ("headers", pa.string()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("first_status", pa.int32()),
    ]
)


def write_list(
    corpora: Sequence[Corpus],
    folder: Path,
    url: Callable[[str], str],
    form: str = "parquet",
    leave_out: Callable[[str], bool] = lambda address: False,
) -> Path:
    """Writes the corpora's rows as one URL list (`list.parquet`, `.jsonl` or `.csv`) and `truth.parquet` beside it.

    `url` turns an address into a URL (see `Server.url`); `leave_out` says of an address that it is not listed. Both files
    have a column `url` in place of `address`, and the same line order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = _with_urls([_listed(corpus.rows(), leave_out) for corpus in corpora], url)
    pq.write_table(_with_urls([_listed(corpus.truth(), leave_out) for corpus in corpora], url), folder / "truth.parquet")
    target = folder / f"list.{form}"
    if form == "parquet":
        pq.write_table(rows, target)
    elif form == "jsonl":
        target.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows.to_pylist()), encoding="utf-8")
    elif form == "csv":
        _write_csv(rows, target)
    else:
        raise UsageError(f"no list format {form!r}; there are parquet, jsonl and csv")
    return target


def _listed(table: pa.Table, leave_out: Callable[[str], bool]) -> pa.Table:
    return table.filter(pa.array([not leave_out(address) for address in table["address"].to_pylist()], pa.bool_()))


def _with_urls(tables: Sequence[pa.Table], url: Callable[[str], str]) -> pa.Table:
    table = pa.concat_tables(tables, promote_options="default")
    urls = pa.array([url(address) for address in table.column("address").to_pylist()], pa.string())
    rest = table.drop_columns(["address"])
    return pa.Table.from_arrays([urls, *rest.columns], names=["url", *rest.column_names])


def _write_csv(rows: pa.Table, target: Path) -> None:
    import pyarrow.csv

    flat = [name for name in rows.column_names if not pa.types.is_nested(rows.schema.field(name).type)]
    pyarrow.csv.write_csv(rows.select(flat), target)


def counts(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value of `column` stands in `table`; null is counted as "null"."""
    values = pc.value_counts(pc.fill_null(table.column(column).cast(pa.string()), "null"))
    return {line["values"]: line["counts"] for line in values.to_pylist()}
