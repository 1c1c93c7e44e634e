"""Small real pools whose rows have embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate import schema as schemas
from curate.lease import claim
from curate.stage import PartFile, fingerprint
from curate.store import Pool

NO_IMAGE, NO_EMBEDDING = 2, 3  # rows of every part
SCORES = pa.schema([
    *(schemas.table("scores").field(name) for name in ("part", "row", "reason")),
    pa.field("clip_tiny_test", pa.float32()),
    *(schemas.table("scores").field(name) for name in ("embedding_file", "basis")),
])  # fmt: skip


@dataclass(frozen=True)
class Embedded:
    """What a pool was made of; `place` is (part, row) of each embedded row."""

    pool: Pool
    vectors: np.ndarray
    place: list[tuple[int, int]]
    ids: list[str]
    scores: list[float | None]

    def and_also(self, more: Embedded) -> Embedded:
        return Embedded(
            self.pool, np.concatenate([self.vectors, more.vectors]), self.place + more.place, self.ids + more.ids, self.scores + more.scores
        )


def clumped(rows: int, dim: int, seed: int, spread: float = 0.25) -> np.ndarray:
    """Unit vectors around few directions; some are equal to another one."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, rows // 4), dim))
    made = centres[draw.integers(0, len(centres), rows)] + spread * draw.normal(size=(rows, dim))
    made[rows // 2 : rows // 2 + rows // 10] = made[: rows // 10]
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float16)


def add_parts(pool: Pool, first: int, parts: Sequence[np.ndarray]) -> Embedded:
    """Adds a part for each array of embeddings, from number `first` on; two rows of each have none."""
    given = Embedded(pool, np.concatenate(parts), [], [], [])
    made: dict[str, list[PartFile]] = {"rows": [], "fetched": [], "scores_base": []}
    for part, own in enumerate(parts, first):
        count = len(own) + 2
        place = [row for row in range(count) if row not in (NO_IMAGE, NO_EMBEDDING)]
        ids = [fingerprint("embedded", str(part), str(row)) for row in range(count)]
        draw = np.random.default_rng(part).integers(0, 9, count)  # few values: many are equal
        score = [None if row % 7 == 6 or row not in place else float(np.float32(draw[row] / 9)) for row in range(count)]
        made["rows"].append(pool.write_part("rows", part, _rows(ids), "test"))
        made["fetched"].append(pool.write_part("fetched", part, _fetched(count), "test"))
        told = {"row": pa.array(range(count), pa.int32()), "clip_tiny_test": pa.array(score, pa.float32())}
        file = publish(pool, part, own, place, count)
        made["scores_base"].append(
            pool.write_part("scores_base", part, pa.table({**told, "embedding_file": [file] * count}), "test", SCORES)
        )
        given.place.extend((part, row) for row in place)
        given.ids.extend(ids[row] for row in place)
        given.scores.extend(score[row] for row in place)
    with claim(pool, {"rows": schemas.table("rows"), "fetched": schemas.table("fetched"), "scores_base": SCORES}) as writer:
        for table, files in made.items():
            writer.commit(table, files)
    return given


def publish(pool: Pool, part: int, vectors: np.ndarray, place: Sequence[int], count: int) -> str:
    """Writes a part's embeddings as the CLIP scorer does, image first and caption second; returns the file."""
    full = np.zeros((count, 2, vectors.shape[1]), np.float16)
    full[place, 0], full[place, 1] = vectors, 1
    temporary = pool.temporary(".npy")
    np.save(temporary, full)
    return pool.publish(temporary, "embeddings/base", f"{part:05d}")


def _rows(ids: list[str]) -> pa.Table:
    return pa.table(
        {"row": pa.array(range(len(ids)), pa.int32()), "sample_id": ids, "url_id": ids, "url": [f"http://a.test/{one}" for one in ids]}
    )


def _fetched(count: int) -> pa.Table:
    imageless = [row == NO_IMAGE for row in range(count)]
    reason = pa.array(["http_not_found" if none else None for none in imageless], pa.string())
    tar = pa.array([None if none else "tars/none.tar" for none in imageless], pa.string())
    sizes = {name: pa.array([100] * count, pa.int32()) for name in ("original_width", "original_height")}
    return pa.table({"row": pa.array(range(count), pa.int32()), "reason": reason, "tar_file": tar, **sizes})
