"""A pool written by hand: captions that share an image, copies under other URLs, images of rows that are refused now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate import schema as schemas
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.media.tar import TarWriter
from curate.plan.identity import sample_id, url_id
from curate.shards.pack import pack
from curate.shards.settings import PackSettings
from curate.store import Pool
from tests.shards.pools import jpeg

CLIP = pa.field("clip_tiny", pa.float32())
DIM = 64

Place = tuple[str, int]
"""Tar and offset of a stored image."""


@dataclass(frozen=True)
class Row:
    """One row; rows with one URL share one stored image, and a number tells images apart."""

    url: str
    caption: str
    image: int | None = None  # None: not found
    reason: str | None = None  # at plan
    refused: bool = False  # by the prefilter, after its image was stored
    score: float = 0.5

    @property
    def sample_id(self) -> str:
        return sample_id(self.url, self.caption)

    @property
    def url_id(self) -> str:
        return url_id(self.url)


def address(name: str) -> str:
    return f"http://a.example/{name}.jpg"


PARTS = (
    (
        Row(address("pair"), "first of two captions", 1),
        Row(address("pair"), "second of two captions", 1),
        Row(address("single"), "alone with its image", 2),
        Row(address("copied"), "the original place", 3),
        Row(address("dead"), "was never there"),
        Row(address("low"), "does not fit its image", 4, score=0.1),
        Row(address("pair"), "first of two captions", 1, reason="duplicate_row"),
    ),
    (
        Row("http://b.example/copy.jpg", "the copy of it", 3),
        Row("http://b.example/hidden.jpg", "stored, then refused", 3, refused=True),
        Row("http://b.example/other.jpg", "another picture", 5),
        Row("http://b.example/low.jpg", "does not fit either", 6, score=0.2),
    ),
    (Row("http://c.example/only.jpg", "the only row of its part", 7),),
    (Row("http://d.example/stays.jpg", "in a part that nothing happens to", 8),),
)

BORROWING = (
    *PARTS,
    (  # of a further list: each uses the image that an earlier part has of its URL
        Row(address("single"), "alone no more", 2),
        Row(address("pair"), "third caption of a pair", 1),
        Row("http://b.example/hidden.jpg", "of an image whose own row is refused", 3),
        Row(address("low"), "does not fit it either", 4, score=0.1),
        Row("http://b.example/low.jpg", "fits what another caption does not", 6, score=0.9),
        Row("http://d.example/stays.jpg", "in a part that only a list that was added later touches", 8),
        Row("http://e.example/new.jpg", "the only new image", 9),
    ),
)

BORROWING = (
    *PARTS,
    (  # of a further list: each uses the image that an earlier part has of its URL
        Row(address("single"), "alone no more", 2),
        Row(address("pair"), "third caption of a pair", 1),
        Row("http://b.example/hidden.jpg", "of an image whose own row is refused", 3),
        Row(address("low"), "does not fit it either", 4, score=0.1),
        Row("http://b.example/low.jpg", "fits what another caption does not", 6, score=0.9),
        Row("http://d.example/stays.jpg", "in a part that only a list that was added later touches", 8),
        Row("http://e.example/new.jpg", "the only new image", 9),
    ),
)


def image(number: int) -> bytes:
    """The stored bytes of an image."""
    return jpeg(number, side=96)


def vector(row: Row) -> np.ndarray:
    """Image and caption embedding, shape (2, DIM)."""
    seeds = (row.image or 0, int(row.sample_id[:8], 16))
    return np.stack([np.random.default_rng(seed).standard_normal(DIM).astype(np.float16) for seed in seeds])


def build(folder: Path, parts: Sequence[Sequence[Row]] = PARTS, packed: bool = True) -> Pool:
    """The pool, with a policy applied (score at least 0.3) and its kept rows packed."""
    pool = Pool.create(folder)
    names = ("rows", "decisions_prefilter", "fetched", "groups_pixels", "pairs_pixels")
    tables = {name: schemas.table(name) for name in names} | {"scores_base": pa.schema([*schemas.table("scores_base"), CLIP])}
    places: dict[str, Place] = {}
    with claim(pool, tables) as run:
        for part, rows in enumerate(parts):
            for name, lines in _lines(pool, part, rows, places).items():
                data = pa.Table.from_pylist(lines, schema=pa.schema([f for f in tables[name] if f.name not in ("part", "basis")]))
                run.commit(name, [pool.write_part(name, part, data, f"basis-{part}", tables[name])])
        run.commit("pairs_pixels", [pool.write_part("pairs_pixels", 0, _pairs(), "by hand")])
    with claim(pool, {}) as run:
        filter_pool(pool, run, FilterSettings(where="clip_tiny >= 0.3", name="good", groups="none"))
        if packed:
            pack(pool, run, "good", PackSettings(shard_samples=3))
    return pool


def _pairs() -> pa.Table:
    schema = pa.schema([f for f in schemas.table("pairs_pixels") if f.name not in ("part", "basis")])
    return pa.Table.from_pylist([{"row": 3, "other_part": 1, "other_row": 0, "match": "exact", "distance": 0}], schema=schema)


def _lines(pool: Pool, part: int, rows: Sequence[Row], places: dict[str, Place]) -> dict[str, list[dict[str, object]]]:
    ids = [{"row": n, "sample_id": row.sample_id, "url_id": row.url_id, "url": row.url} for n, row in enumerate(rows)]
    fetched = _fetched(pool, part, rows, places)
    nothing = np.zeros((2, DIM), np.float16)
    vectors = np.stack([vector(row) if line["tar_file"] else nothing for row, line in zip(rows, fetched, strict=True)])
    measured = [{"phash": n, "image_min_side": 96, "clip_tiny": row.score} for n, row in enumerate(rows)]
    temporary = pool.temporary(".npy")
    np.save(temporary, vectors)
    place = pool.publish(temporary, "embeddings/base", f"{part:05d}")
    return {
        "rows": [{**at, "caption": row.caption, "label": "cat", "reason": row.reason} for at, row in zip(ids, rows, strict=True)],
        "decisions_prefilter": [
            {"row": n, "keep": not (row.refused or row.reason), "reason": "prefilter" if row.refused else None}
            for n, row in enumerate(rows)
        ],
        "fetched": fetched,
        "scores_base": [{"row": n, "embedding_file": place, **(measured[n] if line["tar_file"] else {})} for n, line in enumerate(fetched)],
        "groups_pixels": [
            {"row": n, "group_id": "twins" if row.image == 3 and fetched[n]["tar_file"] else None, "group_size": 2 if row.image == 3 else 1}
            for n, row in enumerate(rows)
        ],
    }


def _fetched(pool: Pool, part: int, rows: Sequence[Row], places: dict[str, Place]) -> list[dict[str, object]]:
    """Lines of the part; `places` says where each URL's image lies, and grows with what this part stores."""
    temporary, new = pool.temporary(".tar"), dict[str, int]()
    with TarWriter(temporary) as tar:
        for row in rows:
            if row.image is not None and row.url not in places and row.url not in new:
                new[row.url] = tar.add(f"{row.sample_id}.jpg", image(row.image))
                tar.add(f"{row.sample_id}.txt", row.caption.encode())
    tar_file = pool.publish(temporary, "tars", f"{part:05d}")
    places |= {url: (tar_file, offset) for url, offset in new.items()}
    lines: list[dict[str, object]] = []
    for number, row in enumerate(rows):
        reason = row.reason or ("prefilter" if row.refused else None if row.image is not None else "http_not_found")
        line: dict[str, object] = {"row": number, "reason": reason, "tar_file": None, "image_sha256": None}
        if reason is None and row.image is not None:
            body = image(row.image)
            stored = hashlib.sha256(body).hexdigest()
            tar, offset = places[row.url]
            line |= {
                "http_status": 200, "original_bytes": len(body) + 1, "original_width": 96, "original_height": 96, "format": "jpg",
                "original_format": "jpeg", "sha256": hashlib.sha256(body + b"!").hexdigest(), "image_sha256": stored, "width": 96,
                "height": 96, "image_bytes": len(body), "exif": '{"Artist": "someone"}',
                "tar_file": tar, "tar_offset": offset, "tar_size": len(body),
            }  # fmt: skip
        lines.append(line)
    return lines
