"""Places in an object store that look like paths, and files that are read from there by ranges.

`place("s3://bucket/prefix")` is an `ObjectPath`, `place("some/folder")` a plain absolute path. Code that only reads or
lists works on either. What would need a real file, a rename or a memory map gets a UsageError of one line from an
`ObjectPath`, and never touches this machine's disk under a strange name.
"""

from __future__ import annotations

import datetime
import errno
import fnmatch
import io
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any

from fsspec import AbstractFileSystem

from curate import bucket
from curate.bucket import Found
from curate.errors import UsageError

SCHEME = "s3://"
TAIL_BYTES = 64 << 10  # of a Parquet file, asked for first: the footer is there, or all of a small file
_PREFIX = "s3:/"
_AHEAD_BYTES = 4 << 20  # that a stream reads at once


class ObjectPath(PosixPath):
    """An address `s3://bucket/key` with the reading half of `pathlib.Path`, and whole objects to write."""

    _found: Found | None = None  # what a listing said of it

    def __str__(self) -> str:
        text = super().__str__()
        return f"{SCHEME}{text[len(_PREFIX) :]}" if text.startswith(_PREFIX) else text

    def __fspath__(self) -> str:
        raise UsageError(f"this does not work on an object store yet: {self} would have to be a file of this machine")

    def absolute(self) -> ObjectPath:
        """Itself."""
        return self

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.parts[1]

    @property
    def key(self) -> str:
        """Key of the object, or of a folder without the slash at its end."""
        return "/".join(self.parts[2:])

    def _below(self, found: Found) -> ObjectPath:
        path = ObjectPath("s3:", self.bucket, found.key)
        path._found = found
        return path

    def _info(self) -> Found:
        if self._found is None or self._found.is_folder:
            return bucket.head(self.bucket, self.key)
        return self._found

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such an object, or any below."""
        return self.is_file() or self.is_dir()

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such an object."""
        try:
            return bool(self.key) and not self._info().is_folder
        except FileNotFoundError:
            return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is any object below."""
        if self._found is not None:
            return self._found.is_folder
        return any(True for _ in bucket.listing(self.bucket, self._prefix(), deep=True, most=1))

    def is_symlink(self) -> bool:
        """There are none."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time. Raises FileNotFoundError."""
        found = self._info()
        times = (int(found.modified),) * 3
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, found.size_bytes, *times))

    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Objects and folders right below."""
        yield from (self._below(found) for found in bucket.listing(self.bucket, self._prefix()))

    def glob(self, pattern: str, **_: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        """What matches, level by level; no `**`."""
        found = [self]
        for piece in PurePosixPath(pattern).parts:
            if set("*?[") & set(piece):
                found = [child for path in found for child in path.iterdir() if fnmatch.fnmatchcase(child.name, piece)]
            else:
                found = [path / piece for path in found if (path / piece).exists()]
        yield from found

    def rglob(self, pattern: str, **_: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        """All objects below whose name matches; folders are none."""
        every = (self._below(found) for found in bucket.listing(self.bucket, self._prefix(), deep=True))
        yield from (path for path in every if fnmatch.fnmatchcase(path.name, pattern))

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        """A seekable stream of the bytes; only for reading, `rb`."""
        if mode != "rb":
            raise UsageError(f"this does not work on an object store yet: {self} cannot be opened with mode {mode!r}")
        return io.BufferedReader(ObjectFile(self, self._info().size_bytes), _AHEAD_BYTES)

    def read_bytes(self) -> bytes:
        """All bytes, in one request. Raises FileNotFoundError."""
        return bucket.get(self.bucket, self.key).data

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """All text, UTF-8 unless said otherwise. Raises FileNotFoundError."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        """Puts the object, whole or not at all."""
        bucket.put(self.bucket, self.key, bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> int:
        """Puts the text, UTF-8, whole or not at all."""
        return self.write_bytes(data.encode())

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object; a missing one is no error, as S3 has it."""
        bucket.delete(self.bucket, self.key)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are only names."""


def place(path: str | Path) -> Path:
    """The path or address as it is used from here on: absolute. Raises UsageError for an address that cannot be one.

    What pathlib made of an address (`s3:/bucket`, one slash) is understood as well.
    """
    text = str(path)
    if "://" not in text and not text.startswith(_PREFIX):
        return Path(path).absolute()
    scheme, _, rest = text.partition(":")
    if scheme != "s3":
        raise UsageError(f"{scheme}:// is no place for a pool: give a folder, or s3://BUCKET/PREFIX")
    if "@" in rest:  # not shown: what stands before it may be a secret
        raise UsageError("an s3:// address must not hold a user name or secret: credentials come from the environment only")
    pieces = rest.strip("/").split("/")
    if len(pieces[0]) < 3 or set(rest) & set("?*#%:") or {"..", "."} & set(pieces):
        raise UsageError("not an address in an object store: write s3://BUCKET/PREFIX, plain names without ? * # % : or ..")
    return ObjectPath("s3:", *pieces)


def is_object(path: str | Path) -> bool:
    """Whether this is an address in an object store."""
    return isinstance(path, ObjectPath) or (isinstance(path, str) and path.startswith(SCHEME))


def read_span(path: Path, offset: int, size: int) -> bytes:
    """Bytes in the middle of a file, in one request where it is an object. Raises FileNotFoundError."""
    if isinstance(path, ObjectPath):
        return bucket.get(path.bucket, path.key, f"{offset}-{offset + size - 1}").data if size else b""
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def scratch_of(path: ObjectPath) -> Path:
    """This machine's folder for unpublished files of a pool: below CURATE_SCRATCH, else below the folder for temporary files."""
    base = Path(os.environ.get("CURATE_SCRATCH") or tempfile.gettempdir()).absolute()
    return base / f"curate-{os.getuid()}" / str(path).removeprefix(SCHEME).replace("/", "_")


class ObjectFile(io.RawIOBase):
    """An object that is read by ranges, one request for each read.

    The position belongs to the thread: DuckDB and Arrow seek and read from several threads at once, in two calls. With
    `etag`, another version than that raises OSError. Without `size_bytes`, the object's tail is read at once and kept.
    """

    def __init__(self, path: ObjectPath, size_bytes: int | None = None, etag: str = "") -> None:
        super().__init__()
        self.path, self.etag, self._here = path, etag, threading.local()
        self._tail = b""
        if size_bytes is None:
            found = bucket.get(path.bucket, path.key, f"-{TAIL_BYTES}")
            size_bytes, self._tail = found.total_bytes, found.data
        self.size = size_bytes

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where this thread reads next."""
        return int(getattr(self._here, "at", 0))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves this thread's position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size}[whence]
        self._here.at = max(0, start + offset)
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the object goes."""
        view = memoryview(buffer).cast("B")
        data = self.read_at(self.tell(), len(view))
        view[: len(data)] = data
        self._here.at = self.tell() + len(data)
        return len(data)

    def read_at(self, start: int, size: int) -> bytes:
        """Bytes from `start` on. Raises OSError when the object is another one than was pinned."""
        end = min(start + size, self.size)
        if start >= end:
            return b""
        kept_from = self.size - len(self._tail)
        if start >= kept_from:
            return self._tail[start - kept_from : end - kept_from]
        try:
            data = bucket.get(self.path.bucket, self.path.key, f"{start}-{end - 1}", self.etag).data
        except bucket.Conflict:
            raise OSError(errno.ESTALE, "it was replaced while it was read", str(self.path)) from None
        if len(data) != end - start:
            raise OSError(errno.EIO, f"it has other bytes than the {self.size} that were promised", str(self.path))
        return data


class Objects(AbstractFileSystem):  # type: ignore[misc]
    """The bucket as fsspec sees it, for DuckDB and for input lists; `sizes` spares a request for each file that it knows."""

    protocol = "s3"
    cachable = False

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.sizes = dict(sizes or {})

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).rstrip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size, type, and of an object its ETag. Raises FileNotFoundError."""
        if path in self.sizes:
            return {"name": path, "size": self.sizes[path], "type": "file"}
        found = _address(path)
        try:
            answer = bucket.call("head_object", found.bucket, found.key) if found.key else None
        except FileNotFoundError:
            answer = None
        if answer is not None:
            return {"name": path, "size": int(answer["ContentLength"]), "type": "file", "ETag": str(answer["ETag"])}
        if found.is_dir():
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(errno.ENOENT, "there is no such object", path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies right below; of an object, itself."""
        found = [_entry(child) for child in _address(path).iterdir()] or [self.info(path)]
        return found if detail else [entry["name"] for entry in found]

    def modified(self, path: str) -> datetime.datetime:
        """A constant: objects that are read through here are never changed in place."""
        return datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

    def glob(self, path: str, **options: Any) -> Any:
        """Names that match; one that is known is itself."""
        return [path] if path in self.sizes else super().glob(path, **options)

    def _open(self, path: str, mode: str = "rb", etag: str = "", **_: Any) -> Any:
        if mode != "rb":
            raise UsageError(f"{path} is only read here")
        size = self.sizes[path] if path in self.sizes else int(self.info(path)["size"])
        file = ObjectFile(_address(path), size, etag)
        return file if path in self.sizes else io.BufferedReader(file, _AHEAD_BYTES)


def _address(path: str) -> ObjectPath:
    """Of any object, whatever signs its key holds."""
    return ObjectPath("s3:", *path.removeprefix(SCHEME).split("/"))


def _entry(path: ObjectPath) -> dict[str, Any]:
    found = path._found
    assert found is not None
    return {"name": str(path), "size": found.size_bytes, "type": "directory" if found.is_folder else "file"}
