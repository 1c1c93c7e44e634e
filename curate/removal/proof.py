"""The proof: a search of every file of a pool for what was taken down.

Every file is read, whoever wrote it: its raw bytes; all columns of Parquet files, decompressed; members of tars; pictures
that pages and documents carry as data: addresses. Looked for are stored images (by hash of tar members, and by marks
anywhere), embeddings and thumbnails (by marks; in the part's own files by position), rows that have their text or an image
again, and names of withdrawn samples in tars and shards.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import AccountingError
from curate.media.tar import TarError, members
from curate.progress import Progress, Silent
from curate.removal.evidence import COLUMNS
from curate.removal.journal import records
from curate.removal.marks import MARKS, SLICE_BYTES, Blob, Search
from curate.store import Pool
from curate.suppress import is_text, read_suppression

_CHUNK = 16 << 20
_DATA_ADDRESS = re.compile(rb"data:[a-z]+/[a-z0-9.+-]+;base64,([A-Za-z0-9+/=]+)")
_TEXTS = {".html", ".htm", ".json", ".svg", ".xml", ".txt", ".md", ".csv"}
_NAMED = 20


@dataclass
class ProofReport:
    """What the search went through and what it found; a clean one has no hits."""

    rows: int  # that were ever taken down
    images: int  # whose bytes were looked for
    files: int = 0
    bytes: int = 0
    hits: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.hits

    def text(self) -> str:
        """Lines for a terminal."""
        looked = f"searched {self.files:,} files ({self.bytes:,} bytes) for {self.images:,} images of {self.rows:,} withdrawn rows"
        found = "nothing of them is left" if self.ok else f"{len(self.hits):,} places still hold something of them"
        return "\n".join([f"{looked}: {found}", *(f"  {hit}" for hit in self.hits[:_NAMED])]) + "\n"

    def require(self) -> None:
        """Raises AccountingError naming the first place."""
        if self.hits:
            raise AccountingError(f"{len(self.hits):,} places still hold what was taken down, the first: {self.hits[0]}")


def prove(pool: Pool, progress: Progress | None = None) -> ProofReport:
    """Searches every file of the pool for everything that its takedowns withdrew."""
    progress = progress or Silent()
    withheld = _Withheld.of(pool)
    report = ProofReport(len(withheld.rows), len(withheld.images))
    paths = sorted(path for path in pool.path.rglob("*") if path.is_file() and not path.is_symlink())
    progress.start("proof", sum(path.stat().st_size for path in paths), "bytes")
    for path in paths:
        report.files += 1
        size = path.stat().st_size
        report.bytes += size
        report.hits += [f"{path.relative_to(pool.path)}: {what}" for what in dict.fromkeys(withheld.found_in(path))]
        progress.advance("proof", size, hits=len(report.hits))
    report.hits += _stored_again(pool) + _texts_left(pool, withheld)
    progress.finish("proof")
    return report


@dataclass(frozen=True)
class _Withheld:
    """All that the takedowns of a pool withdrew."""

    pool: Pool
    rows: dict[tuple[int, int], str]  # (part, row) -> sample_id
    ids: frozenset[str]
    images: frozenset[str]  # sha256 of stored images
    erased: frozenset[tuple[int, int]]  # rows that must have no text
    search: Search

    @classmethod
    def of(cls, pool: Pool) -> _Withheld:
        rows: dict[tuple[int, int], str] = {}
        images: set[str] = set()
        erased: set[tuple[int, int]] = set()
        blobs: dict[tuple[str, ...], Blob] = {}
        for path, record in records(pool).items():
            erases = _erases(path)
            for line in record.to_pylist():
                key = (line["part"], line["row"])
                if line["part"] is not None:
                    rows[key] = str(line["sample_id"])
                    erased.update([key] if erases else [])
                if line["bytes_go"]:
                    images.add(str(line["image_sha256"]))
                for column in COLUMNS:
                    marks = tuple(line[column] or ())
                    blobs.setdefault(marks, Blob(f"{column.removesuffix('_marks')} of {line['sample_id']}", marks))
        return cls(pool, rows, frozenset(rows.values()), frozenset(images), frozenset(erased), Search(blobs.values()))

    def found_in(self, path: Path) -> Iterator[str]:
        """What one file holds of it."""
        least = MARKS if path.suffix == ".tar" else 2  # a tar may rightly hold a picture that is half the same
        yield from (f"{blob.name} (raw bytes)" for blob in self.search.found(_raw(path), least))
        if path.suffix == ".parquet":
            yield from self._in_parquet(path)
        elif path.suffix == ".tar":
            yield from self._in_tar(path)
        elif path.suffix == ".npy":
            yield from self._in_embeddings(path)
        elif path.suffix in _TEXTS:
            yield from (f"{blob.name} (in a page)" for blob in self.search.found(_pictures(path)))

    def _in_tar(self, path: Path) -> Iterator[str]:
        try:
            with path.open("rb") as stream:
                for member in members(path):
                    if member.name.partition(".")[0] in self.ids:
                        yield f"member {member.name}"
                    stream.seek(member.offset)
                    if hashlib.sha256(stream.read(member.size)).hexdigest() in self.images:
                        yield f"the withdrawn image {member.name}"
        except (OSError, TarError) as error:
            yield f"cannot be searched: {error}"

    def _in_embeddings(self, path: Path) -> Iterator[str]:
        """Lines of the part's own file that should be zero."""
        part = path.name.split("-", 1)[0]
        try:
            vectors = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            yield f"cannot be searched: {error}"
            return
        for (number, row), name in self.rows.items() if part.isdigit() else ():
            if number == int(part) and row < len(vectors) and np.any(vectors[row]):
                yield f"embedding of {name} (row {row})"

    def _in_parquet(self, path: Path) -> Iterator[str]:
        try:
            file = pq.ParquetFile(path)
            yield from (f"{blob.name} (in a column)" for blob in self.search.found(_columns(file)))
            if "sample_id" in file.schema_arrow.names and "shards" in path.relative_to(self.pool.path).parts:
                held = self.ids.intersection(file.read(columns=["sample_id"])["sample_id"].to_pylist())
                yield from (f"sample {name} is packed" for name in sorted(held))
        except (OSError, pa.ArrowException) as error:
            yield f"cannot be searched: {str(error).splitlines()[0]}"


def _erases(path: Path) -> bool:
    try:
        return bool(json.loads(path.with_suffix(".json").read_text())["text_erased"])
    except (OSError, ValueError, KeyError):
        return False


def _raw(path: Path) -> Iterator[bytes]:
    """The file in pieces that overlap, so that no slice is cut."""
    with path.open("rb") as stream:
        tail = b""
        while piece := stream.read(_CHUNK):
            yield tail + piece
            tail = piece[-SLICE_BYTES:]


def _pictures(path: Path) -> Iterator[bytes]:
    for found in _DATA_ADDRESS.finditer(path.read_bytes()):
        try:
            yield base64.b64decode(found.group(1))
        except binascii.Error:
            continue


def _columns(file: pq.ParquetFile) -> Iterator[bytes]:
    """Text and binary values of every column, nested ones too, decompressed."""
    for batch in file.iter_batches():
        for column in batch.columns:
            yield from _values(column)


def _values(column: pa.Array) -> Iterator[bytes]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _values(column.dictionary)
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _values(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _values(column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        data = column.buffers()[2]
        yield from () if data is None else (bytes(data),)
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        yield column.to_numpy(zero_copy_only=False).tobytes()


def _stored_again(pool: Pool) -> list[str]:
    """Rows that have an image although the suppression list bars it."""
    barred, rows, fetched = read_suppression(pool), pool.snapshot("rows"), pool.snapshot("fetched")
    hits = []
    for part in sorted(fetched.by_part) if barred else ():
        ids = rows.read(["sample_id", "url_id"], [part]).to_pylist()
        images = fetched.read(["sha256", "image_sha256", "tar_file"], [part]).to_pylist()
        for row, (line, image) in enumerate(zip(ids, images, strict=True)):
            held = barred.holds(line["sample_id"], line["url_id"]) or barred.holds_bytes(image["sha256"], image["image_sha256"])
            if image["tar_file"] is not None and held:
                hits.append(f"tables/fetched: part {part}, row {row} has an image that is on the suppression list")
    return hits


def _texts_left(pool: Pool, withheld: _Withheld) -> list[str]:
    """Withdrawn rows that still, or again, have texts."""
    rows = pool.snapshot("rows")
    parts: dict[int, list[int]] = {}
    for part, row in sorted(withheld.erased):
        parts.setdefault(part, []).append(row)
    names = [name for name in (rows.schema.names if rows.schema else ()) if is_text(name)]
    return [hit for part, found in parts.items() if part in rows.by_part for hit in _told(rows.read(names, [part]), part, found)]


def _told(data: pa.Table, part: int, rows: Iterable[int]) -> Iterator[str]:
    for name in data.column_names:
        if data[name].null_count < data.num_rows:
            valid = data[name].is_valid().to_numpy()
            yield from (f"tables/rows: part {part}, row {row} has a value in {name}" for row in rows if valid[row])
