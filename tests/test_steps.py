"""Steps of a recipe that are more than one call of their package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate import steps
from curate.lease import claim
from curate.recipe import Job, RecipeSettings
from tests.catalog import pools

SAID = {"input": {"path": "list.csv"}, "fit": {"enabled": True}, "score": {"clip": {"model": "own", "reserve": {"fraction": 0.5}}}}


def test_a_pools_own_model_is_fitted_once_although_rows_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, fitted = pools.build(tmp_path / "pool"), []
    monkeypatch.setattr("curate.train.loop.train", lambda source, how, out, progress: (out.mkdir(parents=True), fitted.append(len(source))))
    with claim(pool, {}) as run:
        steps.fit(Job(pool, RecipeSettings.model_validate(SAID), run))
        run.add("fetched", pool.snapshot("fetched").schema)
        run.replace_all("fetched", pool.snapshot("fetched").files[:1])
        steps.fit(Job(pool, RecipeSettings.model_validate(SAID), run))
    assert len(fitted) == 1
