"""An ablation from its settings to its table; what was trained before is not trained again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curate.ablate import page
from curate.ablate.arms import Places, candidates, chosen
from curate.ablate.result import Ablation, ablation
from curate.ablate.runs import FOLDER, Runs, figure
from curate.ablate.settings import AblateSettings
from curate.errors import UsageError
from curate.evaluate.statistics import Values
from curate.progress import Progress
from curate.store import Pool, write_atomically

OWN, RANDOM = 0, 1


@dataclass(frozen=True)
class _Job:
    """One training that the table needs."""

    arm: str
    side: int
    seed: int
    places: Places
    run: str


def ablate(pool: Pool, settings: AblateSettings, name: str, progress: Progress) -> Ablation:
    """Trains each arm and as many random rows, once a seed, and compares; leaves POOL/ablations/NAME/result.json and a page.

    Interrupted and called again, it does the runs that are missing. Raises SettingsError, and UsageError before anything is
    trained, but for a metric that the items do not allow: after the first run; LocalFault, RunFailed.
    """
    among = candidates(pool, settings)
    arms = chosen(pool, among, settings)
    runs = Runs(pool, among, settings)
    jobs = list(_jobs(arms, runs, settings.seeds))
    with runs.alone():
        trained = _do(jobs, runs, settings.metric, progress)
    figures = _figures(jobs, runs, settings)
    found = ablation(
        name, settings.metric, figures, {arm: round(np.mean([len(one) for one in kept])) for arm, kept in arms.items()},
        candidates=among.rows.num_rows, samples_seen=settings.samples_seen, runs=len({job.run for job in jobs}), trained=trained,
    )  # fmt: skip
    return _write(pool, found, settings)


def _jobs(arms: dict[str, list[Places]], runs: Runs, seeds: int) -> list[_Job]:
    """Seed after seed, so that early runs already compare."""
    jobs = []
    for seed in range(seeds):
        for arm, kept in arms.items():
            both = kept[seed], runs.among.random(len(kept[seed]), seed)
            jobs += [_Job(arm, side, seed, places, runs.name(places, seed)) for side, places in enumerate(both)]
    return jobs


def _do(jobs: list[_Job], runs: Runs, metric: tuple[str, ...], progress: Progress) -> int:
    """Does the runs that are missing; returns how many those were."""
    missing = {job.run: job for job in jobs if not runs.is_done(job.run)}
    progress.start("ablate", len({job.run for job in jobs}), "runs")
    progress.advance("ablate", len({job.run for job in jobs}) - len(missing))
    for run, job in missing.items():
        runs.do(run, job.places, job.seed)
        value = float(_measured(runs, run, metric).mean())
        progress.advance("ablate", arm=job.arm if job.side == OWN else "random", rows=len(job.places), seed=job.seed, figure=value)
    progress.finish("ablate")
    return len(missing)


def _figures(jobs: list[_Job], runs: Runs, settings: AblateSettings) -> dict[str, tuple[Values, Values]]:
    """Arm -> figures (seeds, items) of its rows, and of the random ones."""
    found: dict[str, tuple[list[Values], list[Values]]] = {}
    for job in jobs:  # seeds in order
        found.setdefault(job.arm, ([], []))[job.side].append(_measured(runs, job.run, settings.metric))
    return {arm: (np.stack(own), np.stack(random)) for arm, (own, random) in found.items()}


def _measured(runs: Runs, run: str, metric: tuple[str, ...]) -> Values:
    found = runs.figures(run)
    for name in metric:
        if name not in found:
            raise UsageError(f"metric {name} is not measured on these items; there are {', '.join(found)}: choose with  metric=NAME")
    return figure(found, metric)


def _write(pool: Pool, found: Ablation, settings: AblateSettings) -> Ablation:
    folder: Path = pool.path / FOLDER / found.name
    folder.mkdir(parents=True, exist_ok=True)
    written = replace(found, page=page.write(found, folder, pool.path.name))
    told = {**written.to_dict(), "settings": settings.model_dump(mode="json")}
    write_atomically(folder / "result.json", json.dumps(told, indent=1).encode())
    return written
