"""Input lists become rows, ids and parts; a prefilter decides which of them are never requested."""

from __future__ import annotations

from curate.plan.add import AddReport, add
from curate.plan.identity import canonical_url, part_of, sample_id, sampled, url_id
from curate.plan.plan import PlanReport, plan
from curate.plan.prefilter import PrefilterReport, prefilter
from curate.plan.settings import InputSettings, PlanSettings
from curate.plan.survey import Survey, survey

__all__ = [
    "AddReport",
    "InputSettings",
    "PlanReport",
    "PlanSettings",
    "PrefilterReport",
    "Survey",
    "add",
    "canonical_url",
    "part_of",
    "plan",
    "prefilter",
    "sample_id",
    "sampled",
    "survey",
    "url_id",
]
