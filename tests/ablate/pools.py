"""Pools of rendered scenes, with the pictures in their tars and a score for each row, and held-out scenes as WebDataset tars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curate.demo.scenes import SceneRow
from curate.media.tar import TarWriter
from curate.store import Pool
from tests.catalog import pools

SWAPPED = "wrong-caption.example"
"""Host of the rows whose caption belongs to another picture: the truth, where SQL can ask for it."""


def scene_pool(folder: Path, rows: Sequence[SceneRow], scores: Sequence[float | None]) -> Pool:
    """A pool that holds these scenes; `clip_score` is what is given for each."""
    made = [
        pools.Row(row.caption, clip=score, image=row.image_bytes(), url=f"http://{SWAPPED if row.swapped else 'a.example'}{row.path}")
        for row, score in zip(rows, scores, strict=True)
    ]
    return pools.build(folder, [made], policy=None)


def held_out(path: Path, rows: Sequence[SceneRow]) -> Path:
    """Writes the scenes with their captions and, where they are of one thing, classes."""
    with TarWriter(path) as tar:
        for number, row in enumerate(rows):
            tar.add(f"{number:06d}.jpg", row.image_bytes())
            tar.add(f"{number:06d}.txt", row.caption.encode())
            if row.label:
                tar.add(f"{number:06d}.cls.txt", row.label.encode())
    return path
