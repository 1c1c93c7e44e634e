"""Small real pools: a tar with stored images, `rows` and `fetched` beside it, and tiny CLIP folders."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from curate import schema as schemas
from curate.lease import claim
from curate.stage import PartFile, PartTask, Phase, fingerprint
from curate.store import Pool

SIZE = 32
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@dataclass(frozen=True)
class Row:
    """One row of a test pool; rows with equal `image` objects share their bytes."""

    caption: str | None
    image: bytes | None
    reason: str | None = None


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def make_pool(folder: Path, parts: Sequence[Sequence[Row]]) -> Pool:
    """A fetched pool with the given rows; sample ids are numbered through."""
    pool = Pool.create(folder)
    files: dict[str, list[PartFile]] = {"rows": [], "fetched": []}
    for part, rows in enumerate(parts):
        ids = [fingerprint("sample", str(part), str(at)) for at in range(len(rows))]
        keys = {"row": pa.array(range(len(rows)), pa.int32())}
        table = pa.table({**keys, "sample_id": ids, "caption": pa.array([row.caption for row in rows], pa.string())})
        files["rows"].append(pool.write_part("rows", part, table, basis="test"))
        fetched = pa.Table.from_pylist(_fetched(pool, part, rows, ids), schema=schemas.table("fetched"))
        files["fetched"].append(pool.write_part("fetched", part, fetched, basis="test"))
    with claim(pool, {table: schemas.table(table) for table in files}) as run:
        for table, made in files.items():
            run.commit(table, made)
    return pool


def _fetched(pool: Pool, part: int, rows: Sequence[Row], ids: Sequence[str]) -> list[dict[str, object]]:
    temporary = pool.temporary(".tar")
    places: dict[bytes, tuple[int, int]] = {}
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, name in zip(rows, ids, strict=True):
            if row.image is not None and row.image not in places:
                member = tarfile.TarInfo(f"{name}.jpg")
                member.size = len(row.image)
                tar.addfile(member, io.BytesIO(row.image))
                places[row.image] = (tar.offset - (len(row.image) + 511) // 512 * 512, len(row.image))
    tar_file = pool.publish(temporary, "tars", f"{part:05d}")
    return [{"part": part, "row": at, **_line(row, tar_file, places)} for at, row in enumerate(rows)]


def _line(row: Row, tar_file: str, places: dict[bytes, tuple[int, int]]) -> dict[str, object]:
    if row.image is None:
        return {"reason": row.reason or "http_not_found"}
    offset, size = places[row.image]
    return {
        "sha256": hashlib.sha256(row.image).hexdigest(),
        "original_width": 640,
        "original_height": 480,
        "tar_file": tar_file,
        "tar_offset": offset,
        "tar_size": size,
    }


def run_phase(pool: Pool, phase: Phase, schema: pa.Schema) -> list[dict[str, float]]:
    """Scores every part as the runner would and commits; returns the counters of each part."""
    inputs = {table: pool.snapshot(table) for table in phase.inputs}
    counters = []
    with claim(pool, {phase.table: schema}) as run, phase.open() as work:
        for part in inputs["rows"].by_part:
            report = work(PartTask(str(pool.path), part, {name: table.path_of(part) for name, table in inputs.items()}, phase.identity()))
            run.commit(phase.table, report.files)
            counters.append({**report.counters, **report.reasons})
    return counters


def tiny_clip(folder: Path, seed: int = 0, **changes: object) -> Path:
    """A randomly initialised CLIP in open_clip's own folder layout."""
    folder.mkdir(parents=True)
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], **changes}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**TINY)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder
