"""One static page to look at a pool: the funnel, scores with their cuts, pictures on both sides of each cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from curate.catalog.charts import FATES, number
from curate.catalog.cuts import cuts_of
from curate.catalog.digest import digest
from curate.catalog.funnel import Funnel, funnel
from curate.catalog.gather import NEAR_ROWS, CutView, Gatherer, Group, Sample
from curate.catalog.pages import render, veil_text, write_page
from curate.catalog.sql import printable
from curate.catalog.subsets import Subset, read_subset
from curate.catalog.thumbnails import thumbnails
from curate.catalog.views import connect, current_policy, pin
from curate.lease import refuse_unfinished
from curate.progress import Progress, Silent
from curate.store import Pool

_TROUBLES = 12


def report(pool: Pool, out: Path, policy: str | None = None, reveal: bool = False, progress: Progress | None = None) -> Path:
    """Writes the page to `out` (a .html file, or a folder that gets index.html) and returns its path.

    Pictures that are flagged as unsafe, or that no safety score covers, are blurred beyond recognition unless `reveal`.
    The same pool gives the same page. Raises LocalFault when the page cannot be written.
    """
    refuse_unfinished(pool)  # its pictures would be shown once more
    progress = progress or Silent()
    progress.start("report", None, "steps")
    chosen = current_policy(pool) if policy is None else policy
    path = write_page(render("report.html", _content(pool, chosen, reveal)), out)
    progress.finish("report")
    return path


def _content(pool: Pool, policy: str, reveal: bool) -> dict[str, Any]:
    """Everything that the template names."""
    subset, counted = read_subset(pool, policy), funnel(pool, policy)
    with connect(pool, policy) as connection:
        gatherer = Gatherer(connection, cuts_of(connection, subset))
        cuts, kept, groups = gatherer.cut_views(), gatherer.kept(), gatherer.groups()
        samples = _shown(cuts, kept, groups)
        content = {
            "cuts": cuts, "kept": kept, "groups": groups, "distributions": gatherer.distributions(), "domains": gatherer.domains(),
            "domain_count": gatherer.domain_count(), "languages": gatherer.languages(), "formats": gatherer.formats(),
            "examples": gatherer.examples(), "veil_text": veil_text(gatherer.veil_column),
        }  # fmt: skip
    reasons = [reason for stage in counted.stages for reason in stage.reasons if reason.first]
    return content | {
        "pictures": thumbnails(pool, samples, reveal),
        "veiled": any(sample.veiled for sample in samples),
        "reveal": reveal,
        "troubles": sorted(reasons, key=lambda reason: (-reason.first, reason.reason))[:_TROUBLES],
        "facts": _facts(pool, subset),
        "policy_text": subset.policy_text,
        "settings": _settings(pool),
        **_heading(pool, counted),
    }


def _shown(cuts: Sequence[CutView], kept: Sequence[Sample], groups: Sequence[Group]) -> list[Sample]:
    around = [sample for view in cuts for sample in (*view.below, *view.above)]
    return [*around, *kept, *(sample for group in groups for sample in group.members)]


def _heading(pool: Pool, counted: Funnel) -> dict[str, Any]:
    share = counted.kept / counted.rows if counted.rows else 0.0
    name = pool.path.name
    return {
        "funnel": counted,
        "outcomes": {outcome: getattr(counted, outcome) for outcome in FATES},
        "share": f"{share:.1%}",
        "pool_name": name,
        "title": printable(name),
        "headline": "What was kept, and why the rest was not" if counted.policy else "What is in the pool",
        "near_rows": NEAR_ROWS,
    }


def _facts(pool: Pool, subset: Subset) -> list[tuple[str, str]]:
    """Versions, settings and digests; no clock and no path, so that equal pools give equal pages."""
    versions = {name: found.version for name, found in pin(pool).items()}
    lines = digest(pool, subset.name or None)
    facts = [("curate", _version()), ("digest, content", lines["content"]), ("digest, scores", lines["scores"])]
    if subset.name:
        facts += [("policy", subset.name), ("clip_score stands for", subset.clip_column or "—")]
        facts += [
            (f"${name}", number(value) if isinstance(value, float | int) else str(value)) for name, value in subset.parameters.items()
        ]
    return [*facts, ("table versions", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def _version() -> str:
    try:
        return metadata.version("curate-vlm")
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "from a checkout"


def _settings(pool: Pool) -> str:
    found = pool.read_document("settings")
    return json.dumps(found, indent=2, ensure_ascii=False) if found else ""
