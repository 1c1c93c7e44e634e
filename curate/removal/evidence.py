"""What is noted of the bytes that leave, before they do, so that any later search can tell whether they are still somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog.thumbnails import miniature
from curate.media.header import MediaError
from curate.removal.marks import Mark, marks_of
from curate.shards.sources import Tars
from curate.store import Pool

COLUMNS = ("image_marks", "embedding_marks", "thumbnail_marks")


def with_marks(pool: Pool, rows: pa.Table) -> pa.Table:
    """The rows that leave with the marks of their stored image, their image embeddings and their thumbnails.

    Rows whose bytes stay for another row have none. Thumbnails are made only where some page of the pool may show them.
    """
    pages = any(path.suffix in (".html", ".htm") for path in pool.path.rglob("*.htm*"))
    marks: dict[str, list[list[Mark]]] = {name: [] for name in COLUMNS}
    embeddings = _embeddings(pool, rows)
    made: dict[str, tuple[list[Mark], list[Mark]]] = {}
    with Tars(pool.path) as tars:
        for line in rows.to_pylist():
            key = str(line["image_sha256"])
            if line["bytes_go"] and key not in made:
                image = tars.read(line["tar_file"], line["tar_offset"], line["tar_size"])
                made[key] = marks_of(image), _thumbnails(image) if pages else []
            image_marks, thumbnail_marks = made[key] if line["bytes_go"] else ([], [])
            marks["image_marks"].append(image_marks)
            marks["thumbnail_marks"].append(thumbnail_marks)
            marks["embedding_marks"].append(embeddings.get((line["part"], line["row"]), []) if line["bytes_go"] else [])
    for name, values in marks.items():
        rows = rows.append_column(name, pa.array(values, pa.list_(pa.string())))
    return rows


def _thumbnails(image: bytes) -> list[Mark]:
    try:
        return marks_of(miniature(image, veiled=False))
    except MediaError:
        return []


def _embeddings(pool: Pool, rows: pa.Table) -> dict[tuple[int, int], list[Mark]]:
    """Marks of the vectors of each row, from every table of scores."""
    found: dict[tuple[int, int], list[Mark]] = {}
    wanted: dict[int, list[int]] = {}
    for part, row in zip(rows["part"].to_pylist(), rows["row"].to_pylist(), strict=True):
        wanted.setdefault(part, []).append(row)
    for part, path in _embedding_files(pool, wanted):
        vectors = np.load(path, mmap_mode="r")
        for row in wanted[part]:
            vector = vectors[row, 0] if vectors.ndim == 3 else vectors[row]  # of the image; captions repeat
            found.setdefault((part, row), []).extend(marks_of(np.ascontiguousarray(vector).tobytes()))
    return found


def _embedding_files(pool: Pool, parts: dict[int, list[int]]) -> Iterator[tuple[int, Path]]:
    for table in [name for name in pool.tables() if name.startswith("scores_")]:
        snapshot = pool.snapshot(table)
        for part in parts:
            if part in snapshot.by_part and "embedding_file" in pq.read_schema(snapshot.path_of(part)).names:
                names = snapshot.read(["embedding_file"], [part])["embedding_file"].drop_null().unique().to_pylist()
                yield from ((part, pool.path / name) for name in names)
