"""Answers of the library, as lines for people or JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import click

from curate.cli.reports import sentences


def say(report: object, form: str = "table") -> None:
    """Prints a report: as JSON, or by its own `text()`, in the sentences known for its kind, else field by field."""
    if form == "json":
        click.echo(json.dumps(plain(report), indent=1, default=str))
    elif hasattr(report, "text"):
        click.echo(str(report.text()).rstrip("\n"))
    else:
        told = sentences(report)
        click.echo("\n".join(lines(plain(report)) if told is None else told))


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
