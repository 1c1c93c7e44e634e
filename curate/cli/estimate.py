"""The command that says what a list will cost and yield before it is fetched."""

from __future__ import annotations

from pathlib import Path

import click

from curate.cli.options import format_option, overrides_argument
from curate.cli.output import say
from curate.cli.progress import display


@click.command()
@click.argument("list", metavar="LIST")
@overrides_argument
@click.option("--rows", type=click.IntRange(min=1), default=1000, help="How many rows to fetch for it, about.  [1000]")
@click.option("--policy", help="Also score them, and say how many rows this policy keeps.")
@click.option("--price", type=click.FloatRange(min=0), help="Of a machine hour, in your currency.  [engine.price_per_machine_hour]")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the sample's pool in this folder.")
@format_option
def estimate(
    list: str, overrides: tuple[str, ...], rows: int, policy: str | None, price: float | None, keep: Path | None, form: str
) -> None:
    """Say what a list will cost and yield.

    Fetches a sample of it, drawn by hash, and reckons up the rest: rows with an image, bytes, disk, hours, each with a
    95 % interval.

    LIST is a file, folder, glob or URL, as input.path. KEY=VALUE changes a setting, as in `curate run ingest`.

    \b
    Examples:
      curate estimate list.parquet fetch.contact=you@example.org
      curate estimate laion.parquet prefilter.where="similarity > 0.3" --rows 5000 --policy datacomp_basic
      curate estimate list.csv --price 0.5 --format json
    """
    from curate.forecast import estimate as reckon

    with display() as progress:
        report = reckon(list, overrides, rows=rows, policy=policy, price=price, keep=keep, progress=progress)
    say(report, form)
