"""Recipes: which steps in which order, and the settings they share. The files in `pipelines/` are made of this."""

from __future__ import annotations

import collections
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import model_validator

from curate.dedupe.settings import DedupeSettings
from curate.engines.base import EngineSettings
from curate.errors import CurateError, SettingsError
from curate.evaluate.settings import EvaluateSettings
from curate.fetch.settings import FetchSettings
from curate.filter.settings import FilterSettings
from curate.lease import Run, claim
from curate.media.url import redacted
from curate.monitor.settings import LogSettings
from curate.monitor.watch import watched
from curate.plan.settings import InputSettings, PlanSettings
from curate.progress import Progress, Silent
from curate.run import make_engine
from curate.schema import nearest, resources
from curate.score.settings import ScoreSettings
from curate.settings import Settings, build, compose
from curate.shards.settings import PackSettings
from curate.store import Pool
from curate.train.settings import TrainSettings


class PrefilterSettings(Settings):
    """Which rows may be requested at all: a SQL condition over input columns, or a list of ids.

    Said as one text (`prefilter="WIDTH >= 256"`), it is the condition.
    """

    where: str | None = None
    uid_file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _condition(cls, said: object) -> object:
        return {"where": said} if isinstance(said, str) else said


class FitSettings(Settings):
    """A small CLIP that is trained on the pool itself, so that a pool can be scored without weights from outside.

    It learns from the rows that `score.clip.reserve` sets aside by hash, and never scores those.
    """

    enabled: bool = False
    name: str = "own"  # folder below models/ of the pool
    train: str = "demo_clip"  # name of a file in conf/train
    samples_seen: int | None = None  # instead of that file's


class ReportSettings(Settings):
    """The page that `curate report` writes."""

    enabled: bool = True
    reveal: bool = False  # show flagged and unscored images unblurred


class RecipeSettings(Settings):
    """Everything a recipe can be told; each part is described in its own package."""

    input: InputSettings
    plan: PlanSettings = PlanSettings()
    prefilter: PrefilterSettings = PrefilterSettings()
    fetch: FetchSettings = FetchSettings()
    fit: FitSettings = FitSettings()
    score: ScoreSettings = ScoreSettings()
    dedupe: DedupeSettings = DedupeSettings()
    filter: FilterSettings = FilterSettings()
    pack: PackSettings = PackSettings()
    report: ReportSettings = ReportSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    engine: EngineSettings = EngineSettings()
    log: LogSettings = LogSettings()


@dataclass
class Job:
    """One run of a recipe on one pool; steps read settings, write tables, and leave what they found in `reports`."""

    pool: Pool
    settings: RecipeSettings
    run: Run
    progress: Progress = field(default_factory=Silent)
    reports: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    counters: collections.Counter[str] = field(default_factory=collections.Counter)


Step = Callable[[Job], None]


@dataclass(frozen=True)
class Recipe:
    """A named order of steps; `conf/recipe/<name>.yaml` holds its values."""

    name: str
    steps: tuple[Step, ...]

    def names(self) -> list[str]:
        """Names of the steps, in order."""
        return [step.__name__ for step in self.steps]

    def chosen(self, only: str | None, start: str | None) -> list[Step]:
        """The steps to run: all, one, or all from one on. Raises SettingsError for a name that is no step."""
        for name in filter(None, (only, start)):
            if name not in self.names():
                offer = nearest(name, self.names()) or f"; it has {', '.join(self.names())}"
                raise SettingsError(f"recipe {self.name!r} has no step {name!r}{offer}")
        if only:
            return [step for step in self.steps if step.__name__ == only]
        return list(self.steps[self.names().index(start) :] if start else self.steps)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Entry point of a recipe file under spark-submit, ray job or plain python: `RECIPE.py POOL [key=value …]`."""
        given = list(sys.argv[1:] if arguments is None else arguments)
        if not given or "=" in given[0]:
            sys.exit(f"usage: {self.name}.py POOL [key=value ...]")
        try:
            run_recipe(self, Path(given[0]), given[1:])
        except CurateError as error:
            first, *more = str(error).strip().splitlines() or [""]
            print(f"curate: {first.partition('Traceback')[0]}{more[-1].strip() if more else ''}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print("curate: stopped; the same command resumes", file=sys.stderr)
            sys.exit(1)


def load_recipe(name: str) -> Recipe:
    """The recipe of a file in `pipelines/`, or of a Python file at a path. Raises SettingsError."""
    path = Path(name) if name.endswith(".py") else resources("pipelines") / f"{name}.py"
    if not path.is_file():
        known = sorted(found.stem for found in resources("pipelines").glob("*.py"))
        raise SettingsError(f"no recipe {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    spec = importlib.util.spec_from_file_location(f"curate_recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} cannot be loaded as a recipe: {type(error).__name__}: {' '.join(str(error).split())}") from error
    found = getattr(module, "recipe", None)
    if not isinstance(found, Recipe):
        raise SettingsError(f"{path} has no  recipe = Recipe(...)")
    return found


def recipe_settings(recipe: Recipe, overrides: Sequence[str]) -> RecipeSettings:
    """The recipe's values with overrides, checked; touches no pool."""
    values = (resources("conf") / "recipe" / f"{recipe.name}.yaml").exists()
    return build(RecipeSettings, compose(recipe.name if values else "ingest", overrides))


def run_recipe(
    recipe: Recipe,
    pool_path: Path,
    overrides: Sequence[str] = (),
    only: str | None = None,
    start: str | None = None,
    progress: Progress | None = None,
) -> Job:
    """Runs a recipe's steps on the pool at `pool_path`, making the pool when there is none; what is done is skipped.

    Raises CurateError; the same call goes on where it stopped.
    """
    settings, steps = recipe_settings(recipe, overrides), recipe.chosen(only, start)
    make_engine(settings.engine)  # one whose package is missing is refused before anything is written
    pool = Pool.create(pool_path)
    with claim(pool, {}, settings.engine.lease_seconds) as run, _told(pool, run, recipe, settings, progress) as told:
        job = Job(pool, settings, run, told)
        for step in steps[:1]:  # a run that is refused its first table leaves no trace
            _take(job, step)
        pool.write_document("settings", {"recipe": recipe.name, "settings": _without_secrets(settings)})
        for step in steps[1:]:
            _take(job, step)
        run.check()
        pool.write_document("last_run", {"seconds": job.seconds, "counters": dict(job.counters)})
    return job


def _told(pool: Pool, run: Run, recipe: Recipe, settings: RecipeSettings, progress: Progress | None) -> AbstractContextManager[Progress]:
    """Progress that `curate status` and the places named in `log` hear of as well."""
    return watched(pool, run.owner, f"run {recipe.name}", settings.log, progress or Silent(), _without_secrets(settings))


def _without_secrets(settings: RecipeSettings) -> dict[str, Any]:
    """The settings as the pool may keep and a report may show them: a list's address without credentials and signatures."""
    said = settings.model_dump(mode="json")
    paths = [redacted(re.sub(r"(?<=://)[^/?#]*@", "", path)) if "://" in path else path for path in settings.input.paths]
    said["input"]["path"] = paths if isinstance(said["input"]["path"], list) else paths[0]
    return said


def _take(job: Job, step: Step) -> None:
    begun = time.monotonic()
    job.run.check()
    step(job)
    job.seconds[step.__name__] = time.monotonic() - begun
