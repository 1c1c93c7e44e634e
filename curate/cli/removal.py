"""Commands that take rows out of a pool for good."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate.cli.options import format_option, pool_argument
from curate.cli.output import say
from curate.cli.progress import display

if TYPE_CHECKING:
    from curate.api import Pool
    from curate.removal.takedown import Outline, RemovalReport

_FILE = click.Path(dir_okay=False, path_type=Path)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would go.")


@click.command()
@pool_argument
@click.option("--where", metavar="CONDITION", help="Rows of `samples` that satisfy it, for example \"url LIKE '%://a.example/%'\".")
@click.option("--list", "listed", type=_FILE, help="URLs, sample_ids, url_ids, sha256s: .txt, .csv, .tsv or .parquet.")
@click.option("--because", default="", help="Kept with the suppression list and the record.")
@click.option("--only-named", is_flag=True, help="Leave rows that have the same bytes under another URL, or the image of another caption.")
@click.option("--near-copies", is_flag=True, help="Take the other members of their duplicate groups as well.")
@click.option("--keep-text", is_flag=True, help="Leave captions, labels, regions and input columns in the table of rows.")
@click.option("--prove/--no-prove", default=None, help="Search every file afterwards (default); alone: only search.")
@dry_run_option
@yes_option
@format_option
def takedown(
    pool: str, where: str | None, listed: Path | None, because: str, only_named: bool, near_copies: bool, keep_text: bool,
    prove: bool | None, dry_run: bool, yes: bool, form: str,
) -> None:  # fmt: skip
    """Withdraw rows, and keep them from coming back.

    Their images leave every tar, their embeddings, scores and texts every table, packed shards are written anew, what all
    that replaces is deleted at once, and so are the report page and leftovers. URL, sample_id and hashes go on the pool's
    suppression list, which later runs obey. A search of every file then proves it; exit code 3 when it finds something.

    Rows with the same URL or the same bytes as a named one go with it. Models trained on the rows stay as they are.
    POOL/takedowns/NUMBER.parquet and .json say what went, for whoever took data from here. Without --where and --list, a
    takedown that was interrupted is finished.

    \b
    Examples:
      curate takedown POOL --list request.csv --because "request of 3 May"
      curate takedown POOL --where "url LIKE 'https://a.example/%'" --dry-run
      curate takedown POOL --prove
    """
    import curate

    asked = where is not None or listed is not None
    if prove and not asked:
        with display() as progress:
            found = curate.open(pool, progress).prove()
        say(found, form)
        return found.require()

    def take(opened: Pool, dry: bool) -> RemovalReport:
        return opened.takedown(
            where, listed, because, only_named=only_named, near_copies=near_copies, keep_text=keep_text, proof=prove is not False,
            dry_run=dry,
        )  # fmt: skip

    if asked and not (yes or dry_run):
        _confirm(take(curate.open(pool), True).outline)
    with display() as progress:
        report = take(curate.open(pool, progress), dry_run)
    say(report, form)
    if report.proof is not None:
        report.proof.require()


@click.command()
@pool_argument
@click.option("--where", metavar="CONDITION", help="Rows of `samples` whose bytes are to be deleted; all of them dropped.")
@dry_run_option
@yes_option
@format_option
def purge(pool: str, where: str | None, dry_run: bool, yes: bool, form: str) -> None:
    """Delete the stored bytes of dropped rows.

    Frees disk. Their reasons, hashes, sizes and scores stay, so that they are still counted and explained; a later policy
    that would keep one drops it as `purged`. Rows that any policy of the pool keeps are refused. Without --where, a purge
    that was interrupted is finished.

    \b
    Examples:
      curate purge POOL --where "outcome = 'dropped'" --dry-run
      curate purge POOL --where "reason = 'clip_score_low' AND clip_score < 0.2" --yes
    """
    import curate

    if where is not None and not (yes or dry_run):
        _confirm(curate.open(pool).purge(where, dry_run=True).outline)
    with display() as progress:
        report = curate.open(pool, progress).purge(where, dry_run=dry_run)
    say(report, form)


@click.command()
@pool_argument
@click.option("--older-than", metavar="AGE", default="1d", help="Only files that nobody has touched for so long: 12h, 7d.  [1d]")
@dry_run_option
@format_option
def sweep(pool: str, older_than: str, dry_run: bool, form: str) -> None:
    """Delete files that nobody names.

    What killed runs and refused reports have left. Files that any version of a table names, that workers reported, or whose
    table a run is writing are spared.

    \b
    Examples:
      curate sweep POOL --dry-run
      curate sweep POOL --older-than 7d
    """
    import curate
    from curate.later import age

    with display() as progress:
        report = curate.open(pool, progress).sweep(age(older_than).total_seconds(), dry_run=dry_run)
    say(report, form)


def _confirm(outline: Outline) -> None:
    """Shows what is about to happen and waits for a yes; without a terminal only --yes counts."""
    from curate.cli.reports import outline_lines
    from curate.errors import UsageError

    click.echo("\n".join(outline_lines(outline)), err=True)
    if not sys.stdin.isatty():
        raise UsageError("this deletes for good: say --yes to do it, or --dry-run to only look")
    click.confirm("Delete them for good?", abort=True, err=True)
