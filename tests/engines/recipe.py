"""A recipe of one step, for the command line: the phase of the engine tests, misbehaving as ENGINE_TEST_PHASE says."""

from __future__ import annotations

import json
import os

from curate.recipe import Job, Recipe
from curate.run import run_phase
from tests.engines.phases import Groups


def alone(job: Job) -> None:
    """Table `groups_alone`."""
    job.reports["alone"] = run_phase(
        job.pool, job.run, Groups(**json.loads(os.environ["ENGINE_TEST_PHASE"])), job.settings.engine, job.progress
    )


recipe = Recipe("alone", steps=(alone,))

if __name__ == "__main__":
    recipe.main()
