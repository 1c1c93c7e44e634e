"""Settings of an ablation; `conf/ablate/*.yaml` holds ready ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from curate.errors import SettingsError
from curate.evaluate.settings import EvaluateSettings
from curate.filter.settings import FilterSettings
from curate.schema import nearest
from curate.settings import Composed, Settings, build, compose, group, merged
from curate.train.settings import TrainSettings

TRAIN = "tiny_cnn"
RUNS = "runs"  # folder of what was trained, beside those of ablations
"""What is trained where a file does not say."""


class Sweep(Settings):
    """One arm for each fraction: of the candidates that have a number in `column`, the highest share is kept."""

    column: str
    fractions: tuple[float, ...] = Field((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1)

    @field_validator("fractions")
    @classmethod
    def _shares(cls, said: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in said) or len(set(said)) < len(said):
            raise ValueError("fractions lie above 0 and not above 1, each once")
        return said


class Arm(Settings):
    """What one model is trained on: the rows that a policy keeps, those of a condition, or the highest by a column.

    The fields are those of a filter run; without any of the first three the arm's name is the policy's.
    """

    policy: str = ""
    where: str = ""
    sweep: Sweep | None = None
    mode: Literal["absolute", "quantile"] = "absolute"
    parameters: Mapping[str, float | str] = Field(default_factory=dict)
    fractions: Mapping[str, float] = Field(default_factory=dict)
    groups: str = ""
    representative: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, said: object) -> object:
        """A text is a policy, nothing at all the policy of the arm's name."""
        return {"policy": said} if isinstance(said, str) else {} if said is None else said

    @model_validator(mode="after")
    def _one_kind(self) -> Arm:
        said = [name for name in ("policy", "where", "sweep") if getattr(self, name)]
        if len(said) > 1:
            raise ValueError(f"an arm is one of policy, where and sweep, not {' and '.join(said)}")
        if self.sweep and self.model_fields_set - {"sweep"}:
            raise ValueError(f"a sweep has no {sorted(self.model_fields_set - {'sweep'})[0]}")
        return self

    def filter_settings(self, name: str) -> FilterSettings:
        """As `curate filter` would be told."""
        said = self.model_dump(exclude={"sweep"})
        return FilterSettings(**{**said, "policy": self.policy or ("" if self.where else name)})


class AblateSettings(Settings):
    """Arms, each trained once a seed and measured beside as many random rows of the candidates.

    `candidates` is a condition on `samples` that all arms and the random rows must satisfy. `seeds` is how many there are.
    `samples_seen` is the length of every training, whatever the subset's size; it replaces the length that `train` says.
    Measured is on the tars of `evaluate.data` (default: the pool's last run's), or on the share `held_out` of the pool's own
    candidates; rows with an image of the evaluation are in no arm. The figure is the mean of the named metrics.
    """

    pool: str = ""  # where the command line names none
    arms: Mapping[str, Arm] = Field(min_length=1)
    candidates: str = "true"
    seeds: int = Field(5, ge=2, le=1000)
    samples_seen: int = Field(25_600, gt=0)
    train: TrainSettings
    evaluate: EvaluateSettings = EvaluateSettings()
    held_out: float | None = Field(None, gt=0, lt=1)
    metric: tuple[str, ...] = Field(("retrieval/image_to_text_recall_at_5", "retrieval/text_to_image_recall_at_5"), min_length=1)

    @field_validator("metric", mode="before")
    @classmethod
    def _one_or_more(cls, said: object) -> object:
        return (said,) if isinstance(said, str) else said

    @field_validator("arms")
    @classmethod
    def _names(cls, said: Mapping[str, Arm]) -> Mapping[str, Arm]:
        for name in said:
            if not re.fullmatch(r"[\w.@-]{1,64}", name) or name == "random":
                raise ValueError(f"an arm cannot be called {name!r}: letters, digits, _, -, . and @; not random")
        return said

    @model_validator(mode="after")
    def _known_metric(self) -> AblateSettings:
        recalls = [f"{side}_recall_at_{k}" for side in ("image_to_text", "text_to_image") for k in self.evaluate.top]
        known = [f"zero_shot/{name}" for name in ("top_1_accuracy", "top_5_accuracy", "mean_per_class_recall")]
        known += [f"retrieval/{name}" for name in recalls]
        for name in self.metric:
            if name not in known:
                raise ValueError(f"no metric is called {name!r}{nearest(name, known) or '; there are ' + ', '.join(known)}")
        return self

    def training(self, seed: int) -> TrainSettings:
        """How the model of this seed is trained."""
        return self.train.model_copy(update={"seed": seed, "epochs": None, "samples_seen": self.samples_seen})


def load(chosen: str | Path, overrides: tuple[str, ...] = (), evaluate: Mapping[str, Any] | None = None) -> AblateSettings:
    """The settings of `conf/ablate/<chosen>.yaml`, or of a file at that path, with overrides.

    `evaluate` are values that the pool's last run had, below those of the file. Raises SettingsError.
    """
    if Path(chosen).stem == RUNS:
        raise SettingsError(f"{chosen}: {RUNS} is where trained runs lie: call the file something else")
    said = compose(str(chosen), overrides, "ablate")
    defaults = {"train": group("train", TRAIN)} if "train" not in said else {}
    below = {**defaults, "evaluate": dict(evaluate or {})}
    return build(AblateSettings, Composed(merged(below, said), said.origins))


def pool_of(chosen: str | Path, overrides: tuple[str, ...] = ()) -> str:
    """The pool that the file or an override names. Raises SettingsError where neither does."""
    found = compose(str(chosen), overrides, "ablate").get("pool")
    if not found:
        raise SettingsError(f"{chosen} names no pool: say  --pool POOL")
    return str(found)
