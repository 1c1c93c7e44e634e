"""Answers of the library, as lines for people or JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from curate.filter.decide import FilterReport
    from curate.learn import EvaluateReport
    from curate.train.loop import TrainReport


def say(report: object, form: str = "table") -> None:
    """Prints a report: by its own `text()` and `to_dict()` where it has them, else field by field."""
    if form == "json":
        click.echo(json.dumps(plain(report), indent=1, default=str))
    elif hasattr(report, "text"):
        click.echo(str(report.text()).rstrip("\n"))
    else:
        click.echo("\n".join(lines(plain(report))))


def say_report(report: object) -> None:
    """Prints what a step found, for people: a sentence where one is known for its kind, else field by field."""
    told = TOLD.get(type(report).__name__)
    told(report) if told else say(report)


def _say_filter(report: FilterReport) -> None:
    """What a policy makes of a pool: its cuts, and rows dropped by each rule first, alone and only."""
    subset = report.subset
    how = " (preview: nothing was written)" if report.preview else " (as before)" if report.unchanged else ""
    click.echo(f"{subset.name}: {subset.kept:,} of {subset.rows:,} rows kept{how}")
    click.echo(f"  {subset.refused:,} had a reason before, {subset.pending:,} are pending")
    for cut in subset.cuts:
        click.echo(f"  {cut.parameter} = {cut.cut:.4f}: keeps {cut.kept:,} of {cut.of:,} {cut.denominator} ({cut.fraction:.1%})")
    width = max((len(name) for name in subset.rules), default=4)
    click.echo(f"  {'rule':<{width}} {'first':>10} {'alone':>10} {'only':>10}")
    for name, counts in subset.rules.items():
        click.echo(f"  {name:<{width}} {counts.first:>10,} {counts.alone:>10,} {counts.only:>10,}")
    if duplicates := subset.dropped.get("duplicate"):
        click.echo(f"  {'duplicate':<{width}} {duplicates:>10,}")


def _say_evaluation(report: EvaluateReport) -> None:
    """What was measured, with the 95 % interval of each figure."""
    click.echo(f"{report.model}{' (measured before)' if report.unchanged else ''}")
    for found in report.measurements:
        interval = f"{found.low:.3f} to {found.high:.3f}"
        click.echo(f"  {found.task + ' ' + found.metric:<52} {found.value:.3f}  ({interval}, {found.samples:,} samples)")


def _say_training(report: TrainReport) -> None:
    """Where the model is and how it went; the history of losses is in its folder."""
    click.echo(f"{report.path}: {report.samples_seen:,} samples in {report.steps:,} steps, loss {report.loss_history[-1]:.3f}")


TOLD: dict[str, Callable[[Any], None]] = {
    "FilterReport": _say_filter,
    "EvaluateReport": _say_evaluation,
    "TrainReport": _say_training,
}


def plain(report: object) -> Any:
    """A report as JSON-able data."""
    if hasattr(report, "to_dict"):
        return report.to_dict()
    if hasattr(report, "model_dump"):
        return report.model_dump(mode="json")
    if dataclasses.is_dataclass(report) and not isinstance(report, type):
        return {field.name: plain(getattr(report, field.name)) for field in dataclasses.fields(report)}
    if isinstance(report, Mapping):
        return {str(key): plain(value) for key, value in report.items()}
    return [plain(item) for item in report] if isinstance(report, list | tuple) else report


def lines(content: Mapping[str, Any], indent: str = "") -> list[str]:
    """`name  value`, aligned; what is nested stands below, indented; empty values are left out."""
    width = max((len(name) for name, value in content.items() if not isinstance(value, dict)), default=0)
    written = []
    for name, value in content.items():
        if isinstance(value, dict):
            written += [f"{indent}{name}", *lines(value, f"{indent}  ")] if value else []
        elif value not in (None, "", []):
            written.append(f"{indent}{name:<{width}}  {number(value)}")
    return written


def number(value: object) -> str:
    """A number with thousands separated, anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
