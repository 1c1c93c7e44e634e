"""Semantic duplicates: `python -m tests.bench.dedupe_semantic [--rows N] [--rounds R] [--check all] [--pool FOLDER]`.

On a pool of N embeddings of 512, made at once or, where a folder is named, once and kept. Beside it in each round this machine's
matrix product (sgemm of two shapes, the faster counts). Ours is the whole call with centroids given: read, nearest centroid,
shuffle, pairs, tables. Counted are the multiplications and additions that the method needs: every row with every centroid, and
each pair of rows of a cluster once. Removals are compared with the published procedure computed in 64 bits from whole matrices,
in ten clusters or in all. Prints one JSON object; the last line is the short one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate import schema as schemas
from curate.dedupe import DedupeReport, DedupeSettings, dedupe, output_tables
from curate.engines.base import EngineSettings
from curate.lease import claim
from curate.run import crew
from curate.stage import PartFile, fingerprint
from curate.store import Pool
from tests.dedupe.embedded import SCORES

DIM = 512
PART_ROWS = 50_000
SETTINGS = DedupeSettings(by="embeddings", semantic={"epsilon": 0.05})
BLOCK = 2048


def made_vectors(rows: int) -> Iterator[np.ndarray]:
    """Unit vectors part by part: around as many directions as there will be clusters, each as far from its own as CLIP's; a third
    is a near copy of another one of its part, from equal to just beyond the border."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((max(1, rows // 8000), DIM), np.float32)
    for low in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - low)
        made = centres[draw.integers(0, len(centres), count)] + draw.standard_normal((count, DIM), np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        copies = draw.permutation(count)[: count // 3]
        angle = draw.uniform(0, 0.4, (len(copies), 1)).astype(np.float32) * (draw.random((len(copies), 1)) > 0.1)
        away = draw.standard_normal((len(copies), DIM), np.float32)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        made[copies] = np.cos(angle) * made[draw.integers(0, count, len(copies))] + np.sin(angle) * away
        yield made.astype(np.float16)


def make_pool(folder: Path, rows: int) -> Pool:
    """A pool of scored rows; only what duplicate search reads is there."""
    pool = Pool.create(folder)
    files: dict[str, list[PartFile]] = {"rows": [], "fetched": [], "scores_base": []}
    for part, vectors in enumerate(made_vectors(rows)):
        count = len(vectors)
        row, ids = pa.array(range(count), pa.int32()), [fingerprint(str(part), str(at)) for at in range(count)]
        temporary = pool.temporary(".npy")
        np.save(temporary, np.stack([vectors, np.zeros_like(vectors)], axis=1))  # image, caption
        file = pool.publish(temporary, "embeddings/base", f"{part:05d}")
        score = np.random.default_rng(part).random(count, np.float32)
        for table, columns in {
            "rows": {"sample_id": ids},
            "fetched": {"reason": pa.nulls(count, pa.string())},
            "scores_base": {"clip_tiny_test": score, "embedding_file": [file] * count},
        }.items():
            schema = SCORES if table == "scores_base" else None
            files[table].append(pool.write_part(table, part, pa.table({"row": row, **columns}), "bench", schema))
    with claim(pool, {"rows": schemas.table("rows"), "fetched": schemas.table("fetched"), "scores_base": SCORES}) as writer:
        for table, made in files.items():
            writer.commit(table, made)
    return pool


def searched(pool: Pool, workers: int) -> tuple[DedupeReport, float]:
    """Drops what was found before, searches again: report and seconds."""
    with claim(pool, output_tables(SETTINGS)) as writer:
        for table in output_tables(SETTINGS):
            writer.replace_all(table, [])
        begun = time.perf_counter()
        report = dedupe(pool, writer, SETTINGS, crew(EngineSettings(workers=workers)))
        return report, time.perf_counter() - begun


def needed_flops(pool: Pool) -> float:
    """Of nearest centroids and of pairs."""
    clusters = pool.snapshot("groups_semantic").read(["group_cluster"])["group_cluster"].to_numpy().astype(np.int64)
    sizes = np.bincount(clusters).astype(np.float64)
    centroids = int(str((pool.read_document("fitted_groups_semantic") or {})["clusters"]))
    return float(2 * DIM * (len(clusters) * centroids + (sizes * (sizes - 1) / 2).sum()))


def product_rate(seconds: float = 2.0) -> float:
    """Operations a second of the faster of two matrix products."""
    draw = np.random.default_rng(0)
    best = 0.0
    for rows, depth in ((4096, 4096), (4096, DIM)):
        one, other = draw.standard_normal((rows, depth), np.float32), draw.standard_normal((depth, rows), np.float32)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begun = time.perf_counter()
            one @ other
            best = max(best, 2 * rows * rows * depth / (time.perf_counter() - begun))
    return best


def differences(pool: Pool, chosen: int | None) -> dict[str, int]:
    """Clusters looked at, their rows, those that go, and those about which the published procedure says otherwise."""
    stored = np.concatenate([np.load(pool.path / file, mmap_mode="r")[:, 0] for file in _embedding_files(pool)])
    found = pool.snapshot("groups_semantic").read(["group_cluster", "group_similarity"])
    cluster, similarity = (found[name].to_numpy() for name in ("group_cluster", "group_similarity"))
    ids = np.array(pool.snapshot("rows").read(["sample_id"])["sample_id"].to_pylist())
    centroids = np.load(pool.path / str((pool.read_document("fitted_groups_semantic") or {})["file"])).astype(np.float64)
    numbers = np.unique(cluster)[:: max(1, len(centroids) // chosen) if chosen else 1]
    told = {"clusters": len(numbers), "rows": 0, "removed": 0, "differences": 0, "elsewhere": 0}
    for number in numbers.tolist():
        members = np.flatnonzero(cluster == number)
        unit = stored[members].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        to_all = unit @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T
        told["elsewhere"] += int((to_all.max(axis=1) - to_all[:, int(number)] > 1e-14).sum())
        order = np.lexsort((ids[members], np.round(to_all[:, int(number)], 14)))
        goes = _published(unit[order], 1 - SETTINGS.semantic.epsilon)
        told["rows"] += len(members)
        told["removed"] += int(goes.sum())
        told["differences"] += int((goes != (similarity[members][order] > 1 - SETTINGS.semantic.epsilon)).sum())
    return told


def _published(unit: np.ndarray, border: float) -> np.ndarray:
    """Sorted rows of a cluster → which of them have, in the upper triangle of their matrix of cosines, a number above the border."""
    largest = np.zeros(len(unit))
    for low in range(0, len(unit), BLOCK):
        block = np.triu(unit @ unit[low : low + BLOCK].T, 1 - low)  # these columns: rows below the diagonal are zero
        largest[low : low + BLOCK] = block.max(axis=0)
    return np.asarray(largest > border)


def _embedding_files(pool: Pool) -> list[str]:
    names: list[str] = pool.snapshot("scores_base").read(["part", "embedding_file"]).sort_by("part")["embedding_file"].unique().to_pylist()
    return names


def measured(rows: int, rounds: int, workers: int, chosen: int | None, folder: Path) -> dict[str, Any]:
    """Everything about one size."""
    begun = time.perf_counter()
    pool = Pool.open(folder) if folder.exists() else make_pool(folder, rows)
    made_seconds = time.perf_counter() - begun
    first, fit_seconds = searched(pool, workers)
    needed, ours, peer = needed_flops(pool), list[float](), list[float]()
    for _ in range(rounds):
        peer.append(product_rate() / 1e9)
        ours.append(needed / searched(pool, workers)[1] / 1e9)
    ratios = sorted(mine / theirs for mine, theirs in zip(ours, peer, strict=True))
    return {
        "name": "dedupe_semantic", "rows": rows, "dim": DIM, **(pool.read_document("fitted_groups_semantic") or {}), "flops": needed,
        "made_seconds": round(made_seconds, 1), "with_fit_seconds": round(fit_seconds, 1),
        "seconds": [round(needed / rate / 1e9, 2) for rate in ours], "groups": first.groups, "removed": first.near_pairs,
        "ratio": round(ratios[len(ratios) // 2], 3), "ratios": [round(one, 3) for one in ratios],
        "ours": round(float(np.median(ours)), 1), "peer": round(float(np.median(peer)), 1), "unit": "GFLOP/s", "rounds": rounds,
        "published": differences(pool, chosen),
    }  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--pool", type=Path, help="where it lies, or shall be made and kept")
    parser.add_argument("--check", default="10", help="how many clusters are compared with the published procedure, or all")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = said.pool or Path(folder) / "pool"
        found = measured(said.rows, said.rounds, said.workers, None if said.check == "all" else int(said.check), pool)
    print(json.dumps(found, indent=2))
    print(json.dumps({name: found[name] for name in ("name", "ratio", "ours", "peer", "unit", "rounds")}))


if __name__ == "__main__":
    main()
