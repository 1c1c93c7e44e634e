"""Settings: conf/ files and `key=value` overrides become frozen, strict, typed models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every settings model: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
