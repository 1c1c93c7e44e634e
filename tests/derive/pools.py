"""Pools with embeddings that a test chooses row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import schema as schemas
from curate.derive.fit import fitted_phase
from curate.derive.settings import DeriveSettings
from curate.lease import claim
from curate.progress import Silent
from curate.run import stale_parts
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample

CLIP = "clip_vit_l_14_openai"
SCHEMA = pa.schema([*schemas.table("scores"), pa.field(CLIP, pa.float32())])


def vectors(seed: int, *shape: int) -> NDArray[np.float16]:
    """Unit vectors, as a scorer stores them; close enough together that all cosines count."""
    drawn = np.random.default_rng(seed).normal(size=shape) + 0.4
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float16)


def build(
    folder: Path, parts: Sequence[Sequence[Sample]], dim: int = 8, seed: int = 0
) -> tuple[Pool, dict[tuple[int, int], NDArray[np.float64]]]:
    """A pool whose table `scores_l14` names embeddings, and these by (part, row): (2, dim), image first; rows without image have none."""
    pool, known = pools.build(folder, parts, clip=None), {}
    with claim(pool, {"scores_l14": SCHEMA}) as run:
        for part, samples in enumerate(parts):
            stored = vectors(seed + part, len(samples), 2, dim)
            for row, sample in enumerate(samples):
                if sample.reason or sample.pending:
                    stored[row] = 0
                else:
                    known[part, row] = stored[row].astype(np.float64)
            run.commit("scores_l14", [pool.write_part("scores_l14", part, table(pool, part, stored), f"basis-{part}", SCHEMA)])
    return pool, known


def table(pool: Pool, part: int, stored: NDArray[np.float16]) -> pa.Table:
    """What the scorer would have written of these embeddings."""
    temporary = pool.temporary(".npy")
    np.save(temporary, stored)
    file = pool.publish(temporary, "embeddings/l14", f"{part:05d}") if stored.any() else None
    full = stored.astype(np.float32)
    cosine = (full[:, 0] * full[:, 1]).sum(axis=1)
    columns = {"row": pa.array(range(len(stored)), pa.int32()), "embedding_file": pa.array([file] * len(stored), pa.string())}
    return pa.table({**columns, CLIP: pa.array(cosine, pa.float32(), mask=~stored.any(axis=(1, 2)))})


def derive(pool: Pool, name: str, **settings: Any) -> int:
    """Brings the table up to date as the runner would, but in this process; returns how many parts were done."""
    with (
        fitted_phase(pool, DeriveSettings(name=name, **settings), Silent()) as phase,
        claim(pool, {phase.table: phase.schema}) as run,
        phase.open() as work,
    ):
        stale, _ = stale_parts(pool, phase)
        for task in stale:
            run.commit(phase.table, work(task).files)
    return len(stale)


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def column(pool: Pool, name: str, table: str) -> dict[tuple[int, int], object]:
    """A derived column by (part, row)."""
    found = pool.snapshot(table).read(["part", "row", name])
    return {(line["part"], line["row"]): line[name] for line in found.to_pylist()}
