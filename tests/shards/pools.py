"""Pools of any size, written by hand through the store: real tars, and numbers that a test may choose row by row."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curate import schema as schemas
from curate.lease import claim
from curate.media.tar import TarWriter
from curate.store import Pool

CLIP = "clip_vit_b_32_openai"


@dataclass
class Sample:
    """One row; without `reason` it has an image."""

    caption: str = "a caption of some words"
    reason: str | None = None
    score: float | None = 0.5
    width: int = 300
    height: int = 250
    original_bytes: int = 9000
    language: str = "en"
    group: str | None = None
    pending: bool = False
    score_reason: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


def sample_id(part: int, row: int) -> str:
    """Ids as plan would give them: hashes, so without any order."""
    return hashlib.sha256(f"{part}/{row}".encode()).hexdigest()[:32]


def jpeg(number: int, side: int = 24) -> bytes:
    """A small JPEG, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def build(folder: Path, parts: Sequence[Sequence[Sample]], *, clip: str | None = CLIP, groups: str | None = "pixels") -> Pool:
    """A pool with these rows planned, fetched, scored and grouped."""
    pool = Pool.create(folder)
    tables = {"rows": schemas.table("rows"), "fetched": schemas.table("fetched"), "scores_base": scores_schema(clip)}
    if groups:
        tables[f"groups_{groups}"] = schemas.table("groups")
    with claim(pool, tables) as run:
        for part, samples in enumerate(parts):
            for name, data in part_tables(pool, part, samples, clip).items():
                if name in tables:
                    run.commit(name, [pool.write_part(name, part, data, f"basis-{part}", tables[name])])
    return pool


def scores_schema(clip: str | None) -> pa.Schema:
    """Schema of `scores_base` with one CLIP column."""
    return schemas.table("scores_base") if clip is None else schemas.table("scores_base").append(pa.field(clip, pa.float32()))


def part_tables(pool: Pool, part: int, samples: Sequence[Sample], clip: str | None) -> dict[str, pa.Table]:
    """Each table's rows of one part."""
    rows = [
        {"row": n, "sample_id": sample_id(part, n), "url_id": sample_id(part, n), "url": f"https://example.org/{part}/{n}.jpg",
         "caption": s.caption, "source_file": "list.csv", "source_row": n,
         "reason": "duplicate_row" if s.reason == "duplicate_row" else None}
        for n, s in enumerate(samples)
    ]  # fmt: skip
    scores = [_scores(n, s, clip) for n, s in enumerate(samples)]
    groups = [{"row": n, "group_id": s.group, "group_size": 1, "match": None} for n, s in enumerate(samples)]
    found = {"rows": rows, "fetched": _fetched(pool, part, samples), "scores_base": scores, "groups_pixels": groups}
    return {name: _arrow(name, lines, clip) for name, lines in found.items()}


def _scores(row: int, sample: Sample, clip: str | None) -> dict[str, object]:
    if sample.reason or sample.pending or sample.score_reason:
        return {"row": row, "reason": sample.score_reason}
    long, short = max(sample.width, sample.height), min(sample.width, sample.height)
    found: dict[str, object] = {
        "row": row, "caption_characters": len(sample.caption), "caption_words": len(sample.caption.split()),
        "caption_language": sample.language, "image_min_side": short, "image_max_side": long, "image_aspect": long / short, "phash": row,
    }  # fmt: skip
    return found if clip is None else {**found, clip: sample.score}


def _fetched(pool: Pool, part: int, samples: Sequence[Sample]) -> list[dict[str, object]]:
    temporary = pool.temporary(".tar")
    lines: list[dict[str, object]] = []
    with TarWriter(temporary) as tar:
        for row, sample in enumerate(samples):
            lines.append({"row": row, "reason": sample.reason})
            if sample.reason or sample.pending:
                continue
            image, key = jpeg(part * 100_000 + row), sample_id(part, row)
            lines[-1] |= {
                "original_width": sample.width, "original_height": sample.height, "original_bytes": sample.original_bytes,
                "original_format": "jpeg", "width": 24, "height": 24, "format": "jpg", "image_bytes": len(image),
                "sha256": hashlib.sha256(image).hexdigest(), "image_sha256": hashlib.sha256(image).hexdigest(),
                "tar_offset": tar.add(f"{key}.jpg", image), "tar_size": len(image),
            }  # fmt: skip
            tar.add(f"{key}.txt", sample.caption.encode())
    tar_file = pool.publish(temporary, "tars", f"{part:05d}")
    return [line | {"tar_file": tar_file} if "tar_size" in line else line for line in lines]


def _arrow(name: str, lines: Sequence[Mapping[str, object]], clip: str | None) -> pa.Table:
    schema = scores_schema(clip) if name == "scores_base" else schemas.table(name)
    names = [found for found in schema.names if any(found in line for line in lines)]
    return pa.Table.from_pylist([dict(line) for line in lines], schema=pa.schema([schema.field(found) for found in names]))
