"""One static page to look at a pool: the funnel, scores with their cuts, pictures on both sides of each cut.

The page needs nothing but itself: no script, no request. Its content security policy allows data: images and the one
style sheet, by its hash. All text from the pool is escaped, control and direction characters are spelt out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curate.catalog.charts import FATES, histogram, number, plain_bar, stacked_bar
from curate.catalog.cuts import cuts_of
from curate.catalog.digest import digest
from curate.catalog.funnel import Funnel, funnel
from curate.catalog.gather import NEAR_ROWS, CutView, Gatherer, Group, Sample
from curate.catalog.sql import printable
from curate.catalog.subsets import Subset, read_subset
from curate.catalog.thumbnails import thumbnails
from curate.catalog.views import connect, current_policy, pin
from curate.errors import LocalFault
from curate.lease import refuse_unfinished
from curate.objects import ObjectPath
from curate.progress import Progress, Silent
from curate.store import Pool

_PAGE = Path(__file__).parent / "page"
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
    page = _render(_content(pool, chosen, reveal))
    path = out if out.suffix in (".html", ".htm") else out / "index.html"
    try:
        if isinstance(path, ObjectPath):
            path.write_text(page)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise LocalFault(f"cannot write {path}: {error.strerror or error}") from None
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
            "examples": gatherer.examples(), "veil_text": _veil_text(gatherer.veil_column),
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


def _veil_text(column: str | None) -> str:
    if column is None:
        return "No score for unsafe content covers this pool, so all pictures are blurred."
    return f"Pictures that {printable(column)} flags or does not cover are blurred."


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


def _render(content: dict[str, Any]) -> str:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(plain=_plain, plain_lines=_plain_lines, number=number)
    environment.globals.update(stacked_bar=stacked_bar, plain_bar=plain_bar, histogram=histogram, most=_most)
    style = (_PAGE / "report.css").read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html").render(style=Markup(style), style_sha256=sha256, **content)


def _plain(text: object) -> str:
    return printable(str(text))


def _plain_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _most(lines: Sequence[tuple[str, dict[str, int]]]) -> int:
    """Rows of the longest line; all bars of a table share its scale."""
    return max((sum(counts.values()) for _, counts in lines), default=0)
