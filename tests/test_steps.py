"""Steps of a recipe that are more than one call of their package."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from curate import steps
from curate.errors import SettingsError
from curate.lease import claim
from curate.recipe import Job, PrefilterSettings, Recipe, RecipeSettings, load_recipe, recipe_settings, run_recipe
from curate.store import Pool
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


def test_a_pool_keeps_no_secrets_of_its_lists_address(tmp_path: Path) -> None:
    recipe = Recipe("none", ())
    run_recipe(recipe, tmp_path / "pool", ["input.path=https://me:hush@host/l.csv?X-Amz-Signature=abc&v=1"])
    kept = Pool.open(tmp_path / "pool").read_document("settings")
    assert kept is not None and kept["settings"]["input"]["path"] == "https://host/l.csv?X-Amz-Signature=REDACTED&v=1"


@pytest.mark.parametrize("text", ["x = (", "import no_such_package_anywhere", "recipe = Recipe()"])
def test_a_recipe_file_that_does_not_load_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(SettingsError, match=r"mine\.py cannot be loaded as a recipe"):
        load_recipe(str(tmp_path / "mine.py"))


def test_a_prefilter_may_be_said_as_one_text() -> None:
    said = recipe_settings(load_recipe("ingest"), ["input.path=list.csv", "prefilter=similarity > 0.3 AND WIDTH >= 256"])
    assert said.prefilter == PrefilterSettings(where="similarity > 0.3 AND WIDTH >= 256")


def test_opt_outs_with_a_date_are_judged_on_the_day_of_the_pools_first_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, days = Pool.create(tmp_path / "pool"), []
    monkeypatch.setattr("curate.steps._work", lambda job, phase: days.append((phase.opt_out_date, phase.identity())))
    settings = RecipeSettings.model_validate({"input": {"path": "list.csv"}})
    with claim(pool, {}) as run:
        steps.fetch(Job(pool, settings, run))
        pool.write_document("consent", {"opt_out_date": "2020-02-02"})
        steps.fetch(Job(pool, settings, run))
    assert days[0][0] >= datetime.date(2026, 1, 1) and days[1][0] == datetime.date(2020, 2, 2)
    assert days[0][1] == days[1][1]  # a resume on another day goes on with the same pool


def test_an_explicit_day_becomes_the_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool.create(tmp_path / "pool")
    monkeypatch.setattr("curate.steps._work", lambda job, phase: None)
    with claim(pool, {}) as run:
        steps.fetch(Job(pool, RecipeSettings.model_validate({"input": {"path": "l.csv"}, "fetch": {"opt_out_date": "2025-05-05"}}), run))
    assert pool.read_document("consent") == {"opt_out_date": "2025-05-05"}
