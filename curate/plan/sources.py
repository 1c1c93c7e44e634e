"""Which files an input path means, what is written in them, and their bytes: local or through fsspec, plain or packed."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import posixpath
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import fsspec
import pyarrow as pa

from curate.errors import InputError
from curate.objects import SCHEME, Objects
from curate.plan.settings import InputSettings

FORMATS = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
WHOLE_FILE_BYTES = 64 << 20
_MAGIC = "*?["


@dataclass(frozen=True)
class InputFile:
    """One file of an input list; `name` is relative to the list's path and is what `source_file` shows."""

    name: str
    path: str
    filesystem: Any
    format: str
    compression: str | None
    size_bytes: int
    version: str

    @contextlib.contextmanager
    def raw(self) -> Iterator[IO[bytes]]:
        """The stored bytes, seekable. Raises InputError."""
        pinned = {"etag": self.version} if isinstance(self.filesystem, Objects) else {}
        with _reading(self.name), self.filesystem.open(self.path, "rb", **pinned) as stream:
            yield stream

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """The bytes after decompression, forward only, in bounded memory. Raises InputError."""
        with self.raw() as stream:
            yield stream if self.compression is None else pa.CompressedInputStream(stream, self.compression)

    @contextlib.contextmanager
    def seekable(self) -> Iterator[IO[bytes]]:
        """The bytes after decompression, seekable; packed files are unpacked to a temporary file first."""
        if self.compression is None:
            with self.raw() as stream:
                yield stream
            return
        with tempfile.TemporaryFile() as copy:
            with self.unpacked() as stream:
                shutil.copyfileobj(stream, copy, 1 << 20)
            copy.seek(0)
            yield copy

    def fingerprint(self) -> str:
        """Changes when the file does: sha256 of its bytes up to 64 MiB; of a larger one its size, version and both ends."""
        with self.raw() as stream:
            if self.size_bytes <= WHOLE_FILE_BYTES:
                return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
            digest = hashlib.sha256(f"{self.size_bytes} {self.version}".encode() + stream.read(1 << 20))
            stream.seek(-(1 << 20), io.SEEK_END)
            digest.update(stream.read())
            return digest.hexdigest()


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: cannot be read to its end ({line}): repair it, or take it out of input.path") from error


def find_files(settings: InputSettings) -> list[InputFile]:
    """All files of the list: paths in the order given, folders and globs sorted.

    Raises InputError when a path holds nothing, a format is unknown or a file is named twice.
    """
    found = [entry for path in settings.paths for entry in _entries(path, settings)]
    if not found:
        raise InputError("input.path is empty: name a file, folder, glob or URL")
    twice = [path for path, count in Counter(path for _, path, _ in found).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: named twice in input.path")
    if len(settings.paths) > 1:
        base = posixpath.commonpath([posixpath.dirname(path) for _, path, _ in found])
        found = [(filesystem, path, base) for filesystem, path, _ in found]
    return [_input_file(*entry, settings) for entry in found]


def _entries(path: str, settings: InputSettings) -> list[tuple[Any, str, str]]:
    """(filesystem, path, base that names are relative to) of each file that `path` means."""
    try:
        filesystem, root = _opened(path)
        if _is_web(filesystem):  # a web server has no folders, and asking for one would download the list
            return [(filesystem, root, posixpath.dirname(root.partition("?")[0]))]
        if filesystem.isdir(root):
            files = sorted(name for name in filesystem.find(root) if _is_supported(posixpath.relpath(name, root), settings))
            base = root
        elif any(sign in root for sign in _MAGIC) and not filesystem.exists(root):
            files = sorted(name for name in filesystem.glob(root) if not _is_hidden(name) and filesystem.isfile(name))
            base = posixpath.dirname(root[: min(root.index(sign) for sign in _MAGIC if sign in root)])
        else:
            files, base = [root] if filesystem.exists(root) else [], posixpath.dirname(root)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    if not files:
        raise InputError(_nothing_there(filesystem, path, root))
    return [(filesystem, name, base) for name in files]


def _opened(path: str) -> tuple[Any, str]:
    """The filesystem of a path and its name there; lists in S3 are read as pools are, pinned to the version found."""
    if not path.startswith(SCHEME):
        found: tuple[Any, str] = fsspec.core.url_to_fs(path)
        return found
    if "@" in path.removeprefix(SCHEME).partition("/")[0]:  # not shown: what stands there may be a secret
        raise InputError("input.path: an s3:// address must not hold a user name or secret: credentials come from the environment only")
    return Objects(), path.rstrip("/")


def _is_web(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return bool({"http", "https"} & set((protocol,) if isinstance(protocol, str) else protocol))


def _is_supported(name: str, settings: InputSettings) -> bool:
    hidden = any(piece.startswith((".", "_")) for piece in name.split("/"))
    return not hidden and (settings.format != "auto" or _suffixes(name)[0] in FORMATS)


def _is_hidden(path: str) -> bool:
    return posixpath.basename(path).startswith(".")


def _suffixes(name: str) -> tuple[str, str]:
    """Format suffix and compression suffix of a file name, lower case: list.CSV.gz gives (.csv, .gz)."""
    stem, last = posixpath.splitext(name.lower())
    return (posixpath.splitext(stem)[1], last) if last in COMPRESSIONS else (last, "")


def _nothing_there(filesystem: Any, path: str, root: str) -> str:
    if filesystem.isdir(root):
        return f"{path}: no file in it ends in one of {', '.join(FORMATS)} (or these with .gz, .zst)"
    with contextlib.suppress(OSError, NotImplementedError):
        siblings = [posixpath.basename(name) for name in filesystem.ls(posixpath.dirname(root), detail=False)]
        near = difflib.get_close_matches(posixpath.basename(root), siblings, 1)
        if near:
            return f"{path}: there is no such file; did you mean {near[0]!r}?"
    return f"{path}: there is no such file"


def _input_file(filesystem: Any, path: str, base: str, settings: InputSettings) -> InputFile:
    visible = path.partition("?")[0] if _is_web(filesystem) else path  # a query may hold a signature
    suffix, packed = _suffixes(posixpath.basename(visible))
    written = settings.format if settings.format != "auto" else FORMATS.get(suffix)
    if written is None:
        kinds = ", ".join(sorted(set(FORMATS.values())))
        raise InputError(f"{visible}: unknown kind of list {suffix!r}: set input.format to one of {kinds}")
    with _reading(visible):
        info = filesystem.info(path)
    version = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if info.get(key)), "")
    name = posixpath.relpath(visible, base) if base else visible
    printable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return InputFile(printable, path, filesystem, written, COMPRESSIONS.get(packed), int(info.get("size") or 0), version)


def list_fingerprint(files: Sequence[InputFile]) -> dict[str, str]:
    """Fingerprint of each file by name, in list order."""
    return {file.name: file.fingerprint() for file in files}
