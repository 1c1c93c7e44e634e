"""Commands that only read a pool."""

from __future__ import annotations

import json
from pathlib import Path

import click

from curate.cli.options import format_option, policy_option, pool_argument


@click.command()
@pool_argument
@click.argument("query", metavar="SELECT")
@policy_option
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), help="Of the answer.  [table, or as -o is named]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def sql(pool: str, query: str, policy: str | None, form: str | None, output: Path | None) -> None:
    """Ask a pool a question in SQL; the view `samples` has one line for each input row.

    \b
    Examples:
      curate sql POOL "SELECT reason, count(*) FROM samples GROUP BY ALL ORDER BY 2 DESC"
      curate sql POOL "SELECT url, caption, clip_score FROM samples WHERE keep ORDER BY clip_score LIMIT 20"
      curate sql POOL "FROM samples WHERE keep" -o kept.parquet
    """
    import curate
    from curate.catalog import sql as answers
    from curate.errors import UsageError

    answer = curate.open(pool).sql(query, policy).arrow()
    if output is not None:
        suffix = output.suffix.removeprefix(".")
        answers.write(answer, output, form or (suffix if suffix in ("csv", "json", "parquet") else "table"))
        click.echo(f"{answer.num_rows:,} rows in {output}", err=True)
    elif form == "parquet":
        raise UsageError("Parquet is no text for a terminal: name a file with  -o FILE")
    else:
        click.echo(answers.render(answer, form or "table"), nl=False)


@click.command()
@pool_argument
@policy_option
@format_option
def funnel(pool: str, policy: str | None, form: str) -> None:
    """Show what each step and each rule took out, first, alone and only.

    \b
    Examples:
      curate funnel POOL
      curate funnel POOL --policy clip_top30 --format json
    """
    import curate

    counts = curate.open(pool).funnel(policy)
    click.echo(json.dumps(counts.to_dict(), indent=1) if form == "json" else counts.text().rstrip("\n"))
