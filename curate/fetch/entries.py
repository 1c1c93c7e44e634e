"""Lines of a user's block list become fixed-size keys; a line that is none of its kind names its file and number.

A list is a text file with one entry per line, or a CSV file whose first column counts, either also with `.gz`. Blank
lines and lines that start with # are skipped; so is a CSV file's first line when it is a heading.
"""

from __future__ import annotations

import array
import csv
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from yarl import URL

from curate.errors import InputError

KEY_BYTES = 16
_LONGEST_HOST = 300  # DNS allows 253; punycode of a line that is much longer would take seconds
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")


class NoEntry(ValueError):
    """A line is not what its list should hold; the text says what that is."""


@dataclass(frozen=True)
class Entries:
    """`keys`: (n, width) bytes; `lines`: the number of each entry's line, from 1."""

    keys: npt.NDArray[np.uint8]
    lines: npt.NDArray[np.int64]


def text_key(text: str) -> bytes:
    """128 bits of sha256 of a normalised URL or domain."""
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def host_name(text: str) -> str:
    """A host as DNS knows it: lower case, punycode, without a final dot. Raises NoEntry."""
    if len(text) > _LONGEST_HOST:
        raise NoEntry("a domain such as example.org")
    try:
        host = URL.build(scheme="http", host=text.strip("[]").rstrip(".")).raw_host
    except ValueError:
        host = None
    if not host or not _DOMAIN.fullmatch(host.lower()):
        raise NoEntry("a domain such as example.org")
    return host.lower()


def plain_url(text: str) -> str:
    """A URL without fragment and default port, its scheme and host in the one usual spelling. Raises NoEntry."""
    try:
        parts = urlsplit(text.strip())
        port, host = parts.port, host_name(parts.hostname or "")
        text.encode()
    except ValueError:
        raise NoEntry("a URL such as https://example.org/a.jpg") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise NoEntry("an http or https URL")
    place = host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


def url_entry(text: str) -> bytes:
    """Key of a URL. Raises NoEntry."""
    return text_key(plain_url(text))


def domain_entry(text: str) -> bytes:
    """Key of a domain; a leading dot or `*.` says what is meant anyway, that subdomains count too. Raises NoEntry."""
    return text_key(host_name(text.removeprefix("*").removeprefix(".")))


def md5_or_sha256_entry(text: str) -> bytes:
    """The bytes of an md5 (16) or sha256 (32) in hex of either case. Raises NoEntry."""
    if len(text) in (32, 64):
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise NoEntry("an md5 or sha256: 32 or 64 hex digits")


def pdq_entry(text: str) -> bytes:
    """The 32 bytes of a PDQ hash in hex. Raises NoEntry."""
    if len(text) == 64:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise NoEntry("a PDQ hash: 64 hex digits")


def read(path: Path, entry: Callable[[str], bytes]) -> dict[int, Entries]:
    """All entries of a file by the width of their keys in bytes. Raises InputError naming file and line."""
    keys: dict[int, bytearray] = {}
    lines: dict[int, array.array[int]] = {}
    for number, text in _texts(path):
        try:
            key = entry(text)
        except NoEntry as wanted:
            if number == 1 and _is_csv(path):
                continue
            raise InputError(f"{path}, line {number}: {text[:60]!r} is not {wanted}") from None
        keys.setdefault(len(key), bytearray()).extend(key)
        lines.setdefault(len(key), array.array("q")).append(number)
    return {
        width: Entries(np.frombuffer(bytes(keys[width]), np.uint8).reshape(-1, width), np.asarray(lines[width], np.int64)) for width in keys
    }


def _is_csv(path: Path) -> bool:
    return ".csv" in path.suffixes[-2:]


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that may hold an entry."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="" if _is_csv(path) else None) as file:
            for number, text in _first_cells(file) if _is_csv(path) else enumerate(file, 1):
                stripped = text.strip()
                if stripped and not stripped.startswith("#"):
                    yield number, stripped
    except (OSError, EOFError, csv.Error) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"block list {path} cannot be read: {said}") from None


def _first_cells(file: object) -> Iterator[tuple[int, str]]:
    reader = csv.reader(file)  # type: ignore[arg-type]  # gzip's text files are iterators of str
    for cells in reader:
        yield reader.line_num, cells[0] if cells else ""
