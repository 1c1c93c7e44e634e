"""Options and arguments that many commands share."""

from __future__ import annotations

import click

pool_argument = click.argument("pool", type=click.Path(file_okay=False))
"""The folder of an existing pool; `curate.open` says what is wrong with it."""

overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
"""Settings that differ from their defaults."""

format_option = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="What to print.  [table]")
"""Table for people, JSON for programs."""

policy_option = click.option("--policy", help="Whose decisions to show.  [the one applied last]")
"""Of the commands that look at decisions."""


def split_name(first: str | None, overrides: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """An optional name before KEY=VALUE pairs: where it is left out, the first pair stands in its place."""
    return (None, (first, *overrides)) if first and "=" in first else (first, overrides)
