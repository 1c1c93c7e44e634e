"""Plain ustar archives that are a pure function of their members, and a reader that trusts none.

Layout: POSIX.1-1988 ustar headers, regular files only, names of at most 100 bytes, mtime, uid and gid 0, mode 0644.
Equal members in equal order give equal bytes. Members begin at the offset that `TarWriter.add` returns, so that a
range read needs no tar library.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

BLOCK = 512
_END = bytes(2 * BLOCK)
_MAX_SIZE = 0o77777777777
_ZEROS = frozenset(b"\0")


class TarError(ValueError):
    """The archive is damaged or holds what it should not; the message names the offset."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: `offset` is its first data byte."""

    name: str
    offset: int
    size: int


class TarWriter:
    """Writes members one after the other; `close()` adds the end mark. Making them durable is the store's."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=1 << 20)  # noqa: SIM115  # closed by close()
        self._position = 0

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._position

    def add(self, name: str, data: bytes) -> int:
        """Appends one member and returns the offset of its first data byte."""
        self._file.write(_header(name, len(data)))
        offset = self._position + BLOCK
        self._file.write(data)
        padding = -len(data) % BLOCK
        self._file.write(bytes(padding))
        self._position = offset + len(data) + padding
        return offset

    def close(self) -> None:
        """Ends the archive and closes the file; a full disk shows here at the latest, as OSError."""
        if self._file.closed:
            return
        try:
            self._file.write(_END)
            self._position += len(_END)
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Closes the file as it is, without an end mark; for a run that failed."""
        with contextlib.suppress(OSError):  # what cannot be flushed belongs to a file that is thrown away
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _header(name: str, size: int) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= 100:
        raise TarError(f"member name of {len(encoded)} bytes: {name[:40]!r}")
    if size > _MAX_SIZE:
        raise TarError(f"member {name!r} is larger than 8 GiB")
    start = encoded.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" + b"0000000\0" + b"%011o\0" % size + b"00000000000\0"
    end = b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(64 + 16 + 167)
    checksum = sum(start) + sum(end) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + end


def members(path: Path) -> Iterator[Member]:
    """Regular members in order. Raises TarError on anything else than a whole, plain archive."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        position = 0
        while True:
            file.seek(position)
            block = file.read(BLOCK)
            if len(block) < BLOCK:
                raise TarError(f"{path.name}: ends at {position} without an end mark")
            if not any(block):
                return
            member = _member(block, position, path.name)
            position = member.offset + member.size + -member.size % BLOCK
            if position > length:
                raise TarError(f"{path.name}: member at {member.offset} is cut")
            yield member


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every regular member, in order."""
    with path.open("rb") as file:
        for member in members(path):
            file.seek(member.offset)
            yield member.name, file.read(member.size)


def _member(block: bytes, position: int, archive: str) -> Member:
    try:
        stored = int(block[148:156].strip(b" \0") or b"-1", 8)
        size = int(block[124:136].strip(b" \0"), 8)
        name = block[:100].rstrip(b"\0").decode()
    except ValueError:
        raise TarError(f"{archive}: damaged header at {position}") from None
    if stored != sum(block) - sum(block[148:156]) + 8 * ord(" ") or size < 0 or not name:
        raise TarError(f"{archive}: damaged header at {position}")
    if block[156:157] not in (b"0", b"\0") or block[257:262] != b"ustar" or not _ZEROS.issuperset(block[345:500]):
        raise TarError(f"{archive}: {name!r} at {position} is not a plain regular file")
    return Member(name, position + BLOCK, size)
