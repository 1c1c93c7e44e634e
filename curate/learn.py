"""Models in a pool: its own scoring CLIP, pre-training on what was packed, and what evaluations found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curate import schema as schemas
from curate.catalog.sql import query
from curate.errors import UsageError
from curate.evaluate.base import Measurement, to_table
from curate.evaluate.settings import EvaluateSettings
from curate.lease import Run
from curate.progress import Progress
from curate.score.reserve import Reserve, reserved
from curate.shards.selection import COLUMNS, Selection
from curate.stage import fingerprint
from curate.store import Pool

EVALUATIONS = "evaluations"


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured on `samples` held-out images; `unchanged` when the same had been measured before."""

    model: str
    measurements: tuple[Measurement, ...]
    unchanged: bool = False


def reserved_rows(pool: Pool, reserve: Reserve, seed: int) -> Selection:
    """The reserved rows that have an image, as training samples."""
    columns = ", ".join(COLUMNS.names)
    found = query(pool, f"SELECT {columns} FROM samples WHERE tar_file IS NOT NULL ORDER BY part, row")
    chosen = [reserved(sample_id, reserve.fraction, reserve.salt) for sample_id in found["sample_id"].to_pylist()]
    return Selection(pool.path, found.filter(pa.array(chosen, pa.bool_())), seed=seed)


def evaluate_model(pool: Pool, run: Run, model: Path, settings: EvaluateSettings, progress: Progress | None = None) -> EvaluateReport:
    """Measures the model in folder `model` on the WebDataset tars at `settings.data`; adds lines to table `evaluations`.

    Equal weights, settings and data are measured once. Raises UsageError when no data is named.
    """
    from curate.evaluate.clip import clip_predict
    from curate.evaluate.items import items, version
    from curate.evaluate.suite import evaluate

    if settings.data is None:
        raise UsageError("nothing to evaluate on: name WebDataset tars (jpg, txt, cls.txt) with  data=FOLDER")
    sizes = version(Path(settings.data))
    predict = clip_predict(model, device=settings.device, precision=settings.precision)
    basis = fingerprint("evaluate", predict.weights_sha256, settings.model_dump_json(), *sizes)
    run.add(EVALUATIONS, schemas.table(EVALUATIONS))
    known = next((file for file in pool.snapshot(EVALUATIONS).files if file.basis == basis), None)
    if known is not None:
        return EvaluateReport(model.name, _measured(pool, known.part), unchanged=True)
    measured = evaluate(predict, items(Path(settings.data)), settings, progress)
    table = to_table(measured, model.name, predict.weights_sha256, settings.model_dump(mode="json"))
    part = max((file.part for file in pool.snapshot(EVALUATIONS).files), default=-1) + 1
    run.commit(EVALUATIONS, [pool.write_part(EVALUATIONS, part, table, basis)])
    return EvaluateReport(model.name, tuple(measured))


def _measured(pool: Pool, part: int) -> tuple[Measurement, ...]:
    names = ["task", "metric", "value", "low", "high", "samples"]
    return tuple(Measurement(**line) for line in pool.snapshot(EVALUATIONS).read(names, [part]).to_pylist())
