"""Pools of drawn scenes into which pictures of an evaluation set were planted, changed as the web changes them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from curate.decontaminate.report import DecontaminateReport
from curate.decontaminate.run import prepared
from curate.decontaminate.settings import DecontaminateSettings
from curate.demo.scenes import SceneRow, scenes
from curate.lease import claim
from curate.media.image import ImageSettings, prepare
from curate.progress import Silent
from curate.run import stale_parts
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.score.layout import export
from tests.score.pools import Row, jpeg, make_pool, run_phase

Pixels = np.ndarray
Change = Callable[[bytes, np.random.Generator], bytes]


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def resized(pixels: Pixels, share: float) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))


def cropped(pixels: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """Without `share` of the area, at a place by chance; sides keep their proportion."""
    height, width = (round(side * (1 - share) ** 0.5) for side in pixels.shape[:2])
    top, left = (int(random.integers(0, full - side + 1)) for full, side in zip(pixels.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


CHANGES: dict[str, Change] = {
    "copied": lambda data, random: data,
    "jpeg": lambda data, random: jpeg(pixels_of(data), int(random.integers(30, 60))),
    "resized": lambda data, random: jpeg(resized(pixels_of(data), float(random.uniform(0.5, 0.9))), 85),
    "cropped": lambda data, random: jpeg(cropped(pixels_of(data), float(random.uniform(0.02, 0.1)), random), 85),
}


def decontaminate(
    pool: Pool, *against: Path | str, clear: Path | None = None, output: Path | None = None, **settings: object
) -> DecontaminateReport:  # fmt: skip
    """As `curate decontaminate`, in this process."""
    said = tuple(map(str, against))
    with prepared(pool, said, str(clear) if clear else None, DecontaminateSettings.model_validate(settings), Silent()) as found:
        found.supersede()
        with claim(pool, {found.phase.table: found.phase.schema}) as run, found.phase.open() as work:
            for task in stale_parts(pool, found.phase)[0]:
                run.commit(found.phase.table, work(task).files)
        return found.report(output, False)


@dataclass(frozen=True)
class Planted:
    """A scored pool, the rows that a picture was planted in (sample_id -> item), and how each was changed."""

    pool: Pool
    items: dict[str, str]
    changes: dict[str, str]


def evaluation(folder: Path, count: int, seed: int = 11) -> list[bytes]:
    """Writes a folder of images, one folder a class as ImageNet has it; returns their bytes in the order of their names."""
    made = []
    for number, row in enumerate(scenes(count, seed, split="eval")):
        path = folder / f"n{number // 50:03d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row.image_bytes())
        made.append(path.read_bytes())
    return made


def name_of(number: int) -> str:
    return f"n{number // 50:03d}/{number:05d}.jpg"


def build(
    folder: Path, originals: Sequence[bytes], rows: int, changes: dict[str, Change], seed: int = 12, part_rows: int = 4000
) -> Planted:  # fmt: skip
    """A pool of `rows` scenes that are no evaluation item, and every original once under each change, spread among them."""
    random = np.random.default_rng(seed)
    clean = [row for row in scenes(rows, seed) if row.kind != "dead"]
    planted = [(how, number, change(data, random)) for how, change in changes.items() for number, data in enumerate(originals)]
    lines: list[tuple[SceneRow | None, str, int, bytes]] = [(row, "", -1, b"") for row in clean]
    lines += [(None, how, number, data) for how, number, data in planted]
    order = random.permutation(len(lines))
    parts = [[_row(lines[at]) for at in order[low : low + part_rows]] for low in range(0, len(order), part_rows)]
    pool = make_pool(folder, parts)
    for said in (
        ScoreSettings(caption=None),
        ScoreSettings(name="layout", image=None, caption=None, descriptor=export(folder.parent / "layout.pt")),
    ):
        score = ScorePhase(said)
        run_phase(pool, score, score.schema)
    ids = pool.snapshot("rows").read(["part", "row", "sample_id"]).sort_by([("part", "ascending"), ("row", "ascending")])["sample_id"]
    named = [(sample, lines[at]) for sample, at in zip(ids.to_pylist(), order, strict=True) if lines[at][1]]
    return Planted(pool, {sample: name_of(line[2]) for sample, line in named}, {sample: line[1] for sample, line in named})


def _row(line: tuple[SceneRow | None, str, int, bytes]) -> Row:
    """As it would have been fetched; what needs no change is stored as it is."""
    row, how, number, data = line
    return Row(row.caption if row else f"{how} {number}", _stored(row.image_bytes() if row else data, how))


def _stored(data: bytes, how: str) -> bytes:
    return data if how == "copied" else prepare(data, ImageSettings()).data
