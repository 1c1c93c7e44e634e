"""What a frozen subset says about itself: `subsets/<name>.json`, written when a policy is applied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.errors import UsageError
from curate.store import Pool


@dataclass(frozen=True)
class Subset:
    """The part of a subset's file that the catalog reads; empty where nothing was applied under this name."""

    name: str
    rules: tuple[str, ...] = ()  # in the policy's order; the election of representatives adds `duplicate`
    user_reasons: tuple[str, ...] = ()  # rules that are not in curate's own list of reasons
    parameters: Mapping[str, object] = field(default_factory=dict)
    policy_text: str = ""
    clip_column: str | None = None
    groups: str | None = None
    decisions_version: int | None = None
    found: Mapping[str, Any] = field(default_factory=dict)  # the whole file


def read_subset(pool: Pool, name: str) -> Subset:
    """The subset `name`. Raises UsageError when its file is damaged."""
    path = pool.path / "subsets" / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Subset(name)
    except ValueError:
        raise UsageError(f"{path} is damaged: apply the policy again with  curate filter") from None
    return Subset(
        name,
        tuple(found.get("rules") or ()),
        tuple(found.get("user_reasons") or ()),
        dict(found.get("parameters") or {}),
        str(found.get("policy_text") or ""),
        found.get("clip_column"),
        found.get("groups"),
        found.get("decisions_version"),
        found,
    )
