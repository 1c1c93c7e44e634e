"""What a person may say about a filter run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from curate.settings import Settings


class FilterSettings(Settings):
    """One policy, or a condition in its place, and how its cuts are to be read."""

    policy: str = ""  # name of a file in conf/policy, or the path of a .sql file
    where: str = ""  # in place of a policy: what a kept row must satisfy, e.g. clip_score > 0.3 AND image_min_side >= 200
    name: str = ""  # of the subset; default: the policy's name, or `custom` for a condition
    mode: Literal["absolute", "quantile"] = "absolute"  # quantile: each declared cut becomes this pool's own
    parameters: Mapping[str, float | str] = Field(default_factory=dict)  # replace the policy's declared values
    fractions: Mapping[str, float] = Field(default_factory=dict)  # replace the shares that the policy's cuts keep, by parameter
    groups: str = ""  # duplicate groups: default the policy's, else the pool's only ones; `none` elects nobody
    representative: str = ""  # SQL order that elects each group's representative; default: the policy's
    preview: bool = False  # count, write nothing
    memory_bytes: int = Field(default=1 << 30, ge=256 << 20)  # of the SQL's tables; what exceeds it goes to the pool's tmp/
