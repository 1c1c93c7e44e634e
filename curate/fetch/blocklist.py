"""Block lists of the user: addresses never asked for, files and pictures never stored.

Lists of known illegal pictures come from clearing houses under agreements; curate brings the check, not the lists.
A match is told as list name and line number, never as content.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import Field

from curate.errors import InputError
from curate.fetch import entries
from curate.fetch.entries import NoEntry, host_name, text_key, url_entry
from curate.fetch.lookup import ExactSet, NearSet
from curate.media.pdq import pdq
from curate.settings import Settings

_VERSION = 1  # of the files in the cache
_LARGE = 50_000  # entries from which a list is worth keeping in the cache
_ENTRY: dict[str, Callable[[str], bytes]] = {
    "urls": url_entry,
    "domains": entries.domain_entry,
    "hashes": entries.md5_or_sha256_entry,
    "pdq": entries.pdq_entry,
}


class BlockListSettings(Settings):
    """Files of block lists by what they hold: text with one entry per line, or CSV (first column), also `.gz`.

    A domain also stands for its subdomains; `hashes` are md5 or sha256 of files as served; a picture is on a `pdq`
    list when its PDQ hash is within 31 bits of an entry and has quality 50 or more.
    """

    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    hashes: tuple[str, ...] = Field(default=(), description="md5 (32 hex digits) or sha256 (64)")
    pdq: tuple[str, ...] = Field(default=(), description="PDQ hashes, 64 hex digits")

    @property
    def files(self) -> Iterator[tuple[str, Path]]:
        """Kind and path of each list."""
        for kind in _ENTRY:
            yield from ((kind, Path(path)) for path in getattr(self, kind))

    def identity(self) -> list[str]:
        """Kind and sha256 of each list's content, sorted; where the files lie does not matter. Raises InputError."""
        return sorted(f"{kind}:{_sha256(path)}" for kind, path in self.files)


@dataclass(frozen=True)
class Hit:
    """The list (`blocklist:NAME`) and line at which something was found."""

    signal: str
    value: str


@dataclass(frozen=True)
class _List:
    kind: str
    name: str
    sets: dict[int, ExactSet | NearSet]  # by key width in bytes

    def find(self, key: bytes) -> Hit | None:
        found = self.sets[len(key)].find(key) if len(key) in self.sets else None
        return None if found is None else Hit(f"blocklist:{self.name}", str(found))


class BlockLists:
    """Lists ready to be asked; made by `load`."""

    def __init__(self, lists: tuple[_List, ...]) -> None:
        self._by_kind = {kind: [one for one in lists if one.kind == kind] for kind in _ENTRY}
        self.needs_md5 = any(16 in one.sets for one in self._by_kind["hashes"])
        self.needs_pixels = bool(self._by_kind["pdq"])

    def of_url(self, url: str) -> Hit | None:
        """Whether an address, or the domain of its host, is listed; for every address before it is asked."""
        if not self._by_kind["urls"] and not self._by_kind["domains"]:
            return None
        try:
            host = host_name(urlsplit(url).hostname or "")
            return self._of_host(host) or (self._find("urls", url_entry(url)) if self._by_kind["urls"] else None)
        except (NoEntry, ValueError):
            return None  # no address that could be asked for either

    def of_body(self, sha256: bytes, md5: bytes | None) -> Hit | None:
        """Whether a file is listed; `md5` is looked at when there is one, see `needs_md5`."""
        if not self._by_kind["hashes"]:
            return None
        return self._find("hashes", sha256) or (self._find("hashes", md5) if md5 else None)

    def of_pixels(self, rgb: npt.NDArray[np.uint8]) -> Hit | None:
        """Whether a picture of (height, width, 3) looks like a listed one."""
        if not self.needs_pixels:
            return None
        seen = pdq(rgb)
        return self._find("pdq", seen.hash) if seen.usable else None

    def _of_host(self, host: str) -> Hit | None:
        if not self._by_kind["domains"]:
            return None
        labels = [host] if _is_address(host) else host.split(".")
        parents = (".".join(labels[start:]) for start in range(len(labels)))
        return next((hit for parent in parents if (hit := self._find("domains", text_key(parent)))), None)

    def _find(self, kind: str, key: bytes) -> Hit | None:
        return next((hit for one in self._by_kind[kind] if (hit := one.find(key))), None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4)
def load(settings: BlockListSettings) -> BlockLists:
    """Reads the lists, once per process; large ones are sorted once per machine. Raises InputError naming file and line."""
    return BlockLists(tuple(_List(kind, path.name, _sets(kind, path)) for kind, path in settings.files))


# -- large lists are kept sorted, in files that every process of the machine maps


def _sets(kind: str, path: Path) -> dict[int, ExactSet | NearSet]:
    cached = _cache() / f"{_sha256(path)}-{kind}-{_VERSION}"
    if cached.is_dir():
        return {int(folder.name): _mapped(folder) for folder in cached.iterdir()}
    made: dict[int, ExactSet | NearSet] = {
        width: NearSet.of(found) if kind == "pdq" else ExactSet.of(found) for width, found in entries.read(path, _ENTRY[kind]).items()
    }
    if sum(len(one.line) for one in made.values()) < _LARGE or not _kept(made, cached):
        return made
    return {int(folder.name): _mapped(folder) for folder in cached.iterdir()}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate" / "blocklists"


def _kept(sets: dict[int, ExactSet | NearSet], place: Path) -> bool:
    """Writes the arrays where other processes find them; False where that cannot be."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=place.parent))
    except OSError:
        return False
    try:
        for width, one in sets.items():
            (folder / str(width)).mkdir()
            for field in fields(one):
                np.save(folder / str(width) / f"{field.name}.npy", getattr(one, field.name))
        folder.rename(place)
    except OSError:  # no space, or another process was first
        shutil.rmtree(folder, ignore_errors=True)
    return place.is_dir()


def _mapped(folder: Path) -> ExactSet | NearSet:
    kind = NearSet if (folder / "order.npy").exists() else ExactSet
    arrays: dict[str, Any] = {field.name: np.asarray(np.load(folder / f"{field.name}.npy", mmap_mode="r")) for field in fields(kind)}
    return kind(**arrays)


def _sha256(path: Path) -> str:
    try:
        stat = path.stat()
        return _sha256_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"block list {path} cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
