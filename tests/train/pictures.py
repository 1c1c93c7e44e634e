"""Real pictures to train on: rendered scenes in one tar, as rows of a pool that lie where they were fetched to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curate.demo.scenes import SceneRow
from curate.media.tar import TarWriter
from curate.shards.selection import Selection

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "patch_size": 16, "image_size": 32, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
"""A vision transformer that takes a step in milliseconds, and has no batch norm."""


def sample_id(row: SceneRow) -> str:
    """A name for a scene: any hash does."""
    return hashlib.sha256(row.path.encode()).hexdigest()[:32]


def selection(folder: Path, rows: Sequence[SceneRow], captions: Sequence[str] | None = None, seed: int = 0) -> Selection:
    """The rows that have an image, drawn into `folder`/part.tar."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = captions or [row.caption for row in rows]
    lines = []
    with TarWriter(folder / "part.tar") as tar:
        for row, caption in zip(rows, texts, strict=True):
            data = row.image_bytes()
            name = sample_id(row)
            place = {"tar_offset": tar.add(f"{name}.jpg", data), "tar_size": len(data)}
            lines.append({"tar_file": "part.tar", "caption": caption, "sample_id": name, **place})
    return Selection(folder, pa.Table.from_pylist(lines), seed=seed)
