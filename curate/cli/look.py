"""Commands that only read a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import click

from curate.cli.options import format_option, policy_option, pool_argument
from curate.cli.output import say


@click.command()
@pool_argument
@click.argument("query", metavar="SELECT")
@policy_option
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet", "npy"]), help="[table, or as -o is named]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def sql(pool: str, query: str, policy: str | None, form: str | None, output: Path | None) -> None:
    """Ask a pool a question in SQL.

    The view `samples` has one line for each input row; SHOW TABLES lists the rest.

    \b
    Examples:
      curate sql POOL "SELECT reason, count(*) FROM samples GROUP BY ALL ORDER BY 2 DESC"
      curate sql POOL "FROM samples WHERE keep" -o kept.parquet
      curate sql POOL "SELECT uid FROM samples WHERE keep" -o datacomp_subset.npy
    """
    import curate
    from curate.catalog import sql as answers
    from curate.errors import UsageError

    chosen = cast(Literal["table", "csv", "json", "parquet", "npy"] | None, form)
    answer = curate.open(pool).sql(query, policy).arrow()
    if output is not None:
        by_suffix = {f".{known}": known for known in answers.FORMATS}
        answers.write(answer, output, chosen or by_suffix.get(output.suffix, "table"))
        click.echo(f"{answer.num_rows:,} rows in {output}", err=True)
    elif chosen in ("parquet", "npy"):
        raise UsageError(f"{chosen} is no text for a terminal: name a file with  -o FILE")
    else:
        click.echo(answers.render(answer, chosen or "table"), nl=False)


@click.command()
@pool_argument
@policy_option
@format_option
def funnel(pool: str, policy: str | None, form: str) -> None:
    """Show what each step and each rule took out.

    For a rule: rows it is the first to drop, drops alone, and that no other rule drops.

    \b
    Examples:
      curate funnel POOL
      curate funnel POOL --policy clip_top30 --format json
    """
    import curate

    say(curate.open(pool).funnel(policy), form)


@click.command()
@pool_argument
@click.argument("subset", required=False)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it.  [croissant.json beside the files]"
)
@click.option(
    "--table", "tables", multiple=True, type=click.Path(path_type=Path), help="Describe this Parquet file and no images; may be repeated."
)
@click.option("--name", default="", help="[the subset's]")
@click.option("--description", default="", help="[rows, policy and digest]")
@click.option("--license", default="", metavar="URL", help="Under which the collection may be used; pictures belong to others.")
@click.option("--cite-as", default="", metavar="BIBTEX", help="How to cite it.")
@click.option("--url", default="", help="Its page.")
@click.option("--creator", "creators", multiple=True, metavar="NAME", help="Who made it; may be repeated.")
@click.option("--version", default="", metavar="1.0.0", help="Of the collection.")
@click.option("--date-published", default="", metavar="2026-01-31", help="No date is written without it.")
@click.option("--base-url", default="", metavar="URL", help="Where the files will be served.")
def croissant(pool: str, subset: str | None, output: Path | None, tables: tuple[Path, ...], **card: object) -> None:
    """Describe a subset in Croissant, for catalogues and loaders.

    Of packed shards: their files with hashes, each column with its meaning, the images by sample_id. With --table, of Parquet files
    that `curate sql` wrote, such as addresses and scores without any image.

    \b
    Examples:
      curate croissant POOL --license https://creativecommons.org/licenses/by/4.0/ --creator "A. Author"
      curate croissant POOL laion400m -o shards/croissant.json --version 1.0.0
      curate croissant POOL --table kept.parquet --base-url https://example.org/data
    """
    import curate

    say(curate.open(pool).croissant(subset, output, tables, **card))


@click.command()
@pool_argument
@click.option("--quick", is_flag=True, help="Tables and sizes only; hash no file.")
@format_option
def verify(pool: str, quick: bool, form: str) -> None:
    """Check that rows balance and files are intact.

    Every input row ends exactly once, and every file is what was published; exit code 3 when not.

    \b
    Examples:
      curate verify POOL
      curate verify POOL --quick --format json
    """
    import curate

    report = curate.open(pool).verify(deep=not quick)
    say(report, form)
    report.require()


@click.command()
@pool_argument
@policy_option
@format_option
def digest(pool: str, policy: str | None, form: str) -> None:
    """Print two lines that are equal for equal pools.

    \b
    Examples:
      curate digest POOL
      curate digest POOL --policy laion400m --format json
    """
    import curate
    from curate.catalog.digest import text

    found = curate.open(pool).digest(policy)
    say(found, form) if form == "json" else click.echo(text(found), nl=False)


@click.command()
@pool_argument
@click.argument("row", metavar="URL")
@format_option
def history(pool: str, row: str, form: str) -> None:
    """Tell what became of one URL.

    From its line in the input list to its place in a shard. A sample_id or url_id does as well.

    \b
    Examples:
      curate history POOL https://example.org/cat.jpg
      curate history POOL 5f0c9d0c6c5d2f0be0ad3d9a1f6e7b23 --format json
    """
    import curate
    from curate.catalog.history import text

    events = curate.open(pool).history(row)
    say(events, form) if form == "json" else click.echo(text(events), nl=False)


@click.command()
@pool_argument
@format_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--watch", "again", is_flag=True, help="Show the runs that are under way until they end; then all of it.")
def status(pool: str, form: str, as_json: bool, again: bool) -> None:
    """Show where a pool stands.

    Runs under way or over (parts done, rate, time left, rows by reason, CPU- and GPU-seconds), tables and who writes them,
    rows by reason, sizes on disk. May be asked at any time, from any machine that sees the pool.

    \b
    Examples:
      curate status POOL
      curate status POOL --watch
      curate status POOL --json
    """
    import curate
    from curate.cli.progress import watch_runs

    opened = curate.open(pool)
    if again:
        watch_runs(opened.runs)
    say(opened.status(), "json" if as_json else form)


@click.command()
@pool_argument
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page.  [POOL/report/index.html]")
@click.option("--reveal", is_flag=True, help="Show flagged and unscored images unblurred.")
@policy_option
def report(pool: str, output: Path | None, reveal: bool, policy: str | None) -> None:
    """Write one HTML page to look at.

    The funnel, scores with their cuts, samples on both sides of each cut, domains and errors, duplicate groups.

    \b
    Examples:
      curate report POOL
      curate report POOL --policy laion400m -o laion400m.html
    """
    import curate
    from curate.cli.progress import display

    with display() as progress:
        page = curate.open(pool, progress).report(output, reveal, policy)
    click.echo(f"open {page}")


@click.command()
@pool_argument
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--fraction", default=0.3, metavar="SHARE", help="Of a column: keep this share, the highest.  [0.3]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures as well.")
@click.option("--reveal", is_flag=True, help="Show flagged and unscored images unblurred.")
@format_option
def compare(pool: str, a: str, b: str, fraction: float, output: Path | None, reveal: bool, form: str) -> None:
    """Tell what two policies keep, and where they differ.

    A and B are policies that were applied, or columns of numbers (two models' scores, say), of which the highest share is
    kept. By language, domain, concept and size; the page shows pictures on which they disagree.

    \b
    Examples:
      curate compare POOL laion400m datacomp_basic
      curate compare POOL clip_b32 clip_l14 --fraction 0.3 -o models.html
    """
    import curate

    say(curate.open(pool).compare(a, b, fraction, output, reveal), form)
