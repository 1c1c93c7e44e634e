"""Files that say what is to be taken down: URLs, sample_ids, url_ids and sha256s, told apart by their form."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import InputError
from curate.plan.identity import Refused, canonical_url, url_id

_ID, _HASH = re.compile(r"[0-9a-fA-F]{32}"), re.compile(r"[0-9a-fA-F]{64}")
_COLUMNS = ("url", "sample_id", "url_id", "sha256", "image_sha256")
_SUFFIXES = (".txt", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Named:
    """What a list names: `ids` are sample_ids or url_ids, `url_ids` those of URLs, `hashes` of bodies or stored images."""

    ids: frozenset[str]
    url_ids: frozenset[str]
    hashes: frozenset[str]

    def __len__(self) -> int:
        return len(self.ids) + len(self.url_ids) + len(self.hashes)


def read_list(path: Path) -> Named:
    """Reads a .txt (one entry a line), .csv or .tsv (every field that has a known form), or .parquet (columns url, sample_id,
    url_id, sha256, image_sha256, or the only one). Raises InputError naming the line that is none of these."""
    ids: set[str] = set()
    url_ids: set[str] = set()
    hashes: set[str] = set()
    for where, text in _entries(path):
        if _HASH.fullmatch(text):
            hashes.add(text.lower())
        elif _ID.fullmatch(text):
            ids.add(text.lower())
        else:
            url = canonical_url(text)
            if isinstance(url, Refused):
                raise InputError(f"{path}, {where}: {text[:80]!r} is neither a URL nor a sample_id, url_id or sha256")
            url_ids.add(url_id(url))
    found = Named(frozenset(ids), frozenset(url_ids), frozenset(hashes))
    if not found:
        raise InputError(f"{path} names nothing")
    return found


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"{path}: a list of what to take down ends in {', '.join(_SUFFIXES)}")
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".txt":
            yield from _present((f"line {number}", line) for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1))
        else:
            yield from _fields(path, "," if suffix == ".csv" else "\t")
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def _parquet(path: Path) -> Iterator[tuple[str, str]]:
    names: list[str] = pq.read_schema(path).names
    chosen = [name for name in names if name.lower() in _COLUMNS] or (names if len(names) == 1 else [])
    if not chosen:
        raise InputError(f"{path}: none of its columns is {', '.join(_COLUMNS)} (there are {', '.join(names)})")
    for name in chosen:
        values = pq.read_table(path, columns=[name])[name].cast(pa.string()).to_pylist()
        yield from _present((f"column {name}, row {number}", value or "") for number, value in enumerate(values))


def _fields(path: Path, delimiter: str) -> Iterator[tuple[str, str]]:
    """Columns with a known name where the first line has some, else the first field of every line."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.reader(stream, delimiter=delimiter))
    header = [name.strip().lower() for name in lines[0]] if lines else []
    known = [at for at, name in enumerate(header) if name in _COLUMNS]
    for number, line in enumerate(lines[1 if known else 0 :], 2 if known else 1):
        yield from _present((f"line {number}", line[at]) for at in known or [0] if at < len(line))


def _present(entries: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Entries that say something; a line that begins with # is a comment."""
    for where, text in entries:
        if text.strip() and not text.lstrip().startswith("#"):
            yield where, text.strip()
