"""A search of its own, that shares nothing with the one in curate: every file of a pool, for whole byte strings."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import curate
from curate.catalog.thumbnails import miniature


@dataclass(frozen=True)
class Secret:
    """All that must be gone of one row."""

    sample_id: str
    caption: str
    image: bytes
    sha256: str  # of the body that was fetched
    embedding: bytes
    thumbnail: bytes


def secret(pool: Path, sample_id: str) -> Secret:
    """Reads a row's bytes as they are stored now."""
    line = curate.open(pool).sql(f"SELECT * FROM samples WHERE sample_id = '{sample_id}'").rows()[0]
    with (pool / line["tar_file"]).open("rb") as stream:
        stream.seek(line["tar_offset"])
        image = stream.read(line["tar_size"])
    assert hashlib.sha256(image).hexdigest() == line["image_sha256"]
    vectors = np.load(pool / line["embedding_file"])
    return Secret(sample_id, line["caption"], image, line["sha256"], vectors[line["row"]].tobytes(), miniature(image, veiled=False))


def places(pool: Path, hidden: Secret) -> list[str]:
    """Every file that holds the image, the embedding, the thumbnail, or a member that is the image, in whatever wrapping."""
    wanted = {"image": hidden.image, "embedding": hidden.embedding, "thumbnail": hidden.thumbnail}
    found = []
    for path in sorted(path for path in pool.rglob("*") if path.is_file()):
        for content in _contents(path):
            found += [f"{path.relative_to(pool)}: {what}" for what, data in wanted.items() if data and data in content]
    return found


def _contents(path: Path) -> Iterator[bytes]:
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            yield from (tar.extractfile(member).read() for member in tar)  # type: ignore[union-attr]
    if path.suffix == ".parquet":
        for line in pq.read_table(path, partitioning=None).to_pylist():
            yield from (_bytes(value) for value in line.values())
    for found in re.findall(rb"base64,([A-Za-z0-9+/=]+)", raw):
        yield base64.b64decode(found)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def texts(pool: Path, text: str) -> list[str]:
    """Files of the newest tables, and tars, that hold a text."""
    found = []
    for path in sorted(pool.rglob("*.parquet")) + sorted(pool.rglob("*.tar")):
        if any(text.encode() in content for content in _contents(path)):
            found.append(str(path.relative_to(pool)))
    return found


def stored(pool: Path) -> dict[str, tuple[str, str]]:
    """sample_id -> hash of the bytes that the pool really stores, and the row's values, for every row that has an image."""
    answers = {}
    hidden = ("tar_file", "tar_offset", "embedding_file", "group_id", "group_size", "match", "basis")
    for line in curate.open(pool).sql("SELECT * FROM samples WHERE tar_file IS NOT NULL").rows():
        with (pool / line["tar_file"]).open("rb") as stream:
            stream.seek(line["tar_offset"])
            image = hashlib.sha256(stream.read(line["tar_size"])).hexdigest()
        vector = np.load(pool / line["embedding_file"])[line["row"]].tobytes()
        values = {key: value for key, value in line.items() if key not in hidden}
        answers[line["sample_id"]] = image, repr((vector, sorted(values.items(), key=str)))
    return answers
