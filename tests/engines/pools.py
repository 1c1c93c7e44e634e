"""Pools for the engine tests: a planned table `rows`, and a phase run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from curate import schema
from curate.engines.base import EngineSettings
from curate.lease import claim
from curate.progress import Progress
from curate.run import PhaseReport, run_phase
from curate.store import Pool
from tests.engines.phases import Groups


def plan(pool: Pool, captions: Mapping[int, Sequence[str | None]], basis: str = "list") -> None:
    """Gives the pool these parts, each a list of captions."""
    with claim(pool, {"rows": schema.table("rows")}) as run:
        run.commit("rows", [pool.write_part("rows", part, _rows(told), basis) for part, told in captions.items()])


def _rows(captions: Sequence[str | None]) -> pa.Table:
    return pa.table({"row": pa.array(range(len(captions)), pa.int32()), "caption": pa.array(captions, pa.string())})


def work(pool: Pool, phase: Groups, engine: EngineSettings, progress: Progress | None = None) -> PhaseReport:
    """Runs the phase as a recipe's step would."""
    with claim(pool, {}) as run:
        return run_phase(pool, run, phase, engine, progress)


def parts_of(pool: Pool) -> list[int]:
    """Parts that the phase has committed."""
    return [file.part for file in pool.snapshot("groups_alone").files]
