"""Commands for a pool after its first run: what failed is asked again, lists and scores are added, many files become few."""

from __future__ import annotations

import click

from curate.cli.options import format_option, overrides_argument, pool_argument
from curate.cli.output import say
from curate.cli.progress import display


@click.command()
@pool_argument
@click.option(
    "--reason", "reasons", multiple=True, metavar="REASON", help="Rows that ended with it; may be repeated.  [all that a try may mend]"
)
@click.option("--older-than", metavar="AGE", help="Only rows that were last asked so long ago: 30m, 12h, 7d, 2w.")
@overrides_argument
@format_option
def retry(pool: str, reasons: tuple[str, ...], older_than: str | None, overrides: tuple[str, ...], form: str) -> None:
    """Ask for failed images once more.

    Only those rows are requested, under the same ids; all others stay as they are. What the server or a policy refused,
    an opt-out above all, is never asked again. Settings are those of the pool's last run; KEY=VALUE changes one, without
    the leading "fetch.".

    \b
    Examples:
      curate retry POOL
      curate retry POOL --reason dns_timeout --older-than 7d
      curate retry POOL --reason timeout_total --reason too_slow total_seconds=60
    """
    import curate
    from curate.settings import values

    with display() as progress:
        report = curate.open(pool, progress).retry(reasons, older_than, **values(overrides))
    say(report, form)


@click.command()
@pool_argument
@click.argument("list_path", metavar="LIST")
@overrides_argument
@format_option
def add(pool: str, list_path: str, overrides: tuple[str, ...], form: str) -> None:
    """Add a further list and fetch what is new in it.

    Rows that the pool has are marked as duplicates; another caption of an image that it has takes that image without a
    request. KEY=VALUE is a setting of the list, without the leading "input."; fetch.KEY=VALUE changes one of the pool's.

    \b
    Examples:
      curate add POOL more.parquet
      curate add POOL more.csv url_column=link caption_column=alt
      curate add POOL "s3://bucket/2025-07/*.parquet" fetch.contact=me@example.org
    """
    import curate
    from curate.settings import values

    said = dict(values(overrides))
    with display() as progress:
        report = curate.open(pool, progress).add(list_path, **said)
    say(report, form)


@click.command()
@pool_argument
@click.argument("table", metavar="TABLE")
@click.option("--on", "key", required=True, metavar="KEY", help="What a line is matched by: uid, url, url_id, sample_id or sha256.")
@click.option("--as", "name", required=True, metavar="NAME", help="Of the new table scores_NAME.")
@click.option("--column", "columns", multiple=True, metavar="[NEW=]NAME", help="A column to take; may be repeated.  [all but the key]")
@click.option("--key-column", metavar="NAME", help="Where the key stands in TABLE.  [the column called like it]")
@click.option("--images", metavar="ARRAY", help="Image embeddings: an array of the .npz beside each file, or a glob of .npy files.")
@click.option("--texts", metavar="ARRAY", help="Text embeddings, said in the same way.")
@format_option
def attach(
    pool: str, table: str, key: str, name: str, columns: tuple[str, ...], key_column: str | None, images: str | None, texts: str | None,
    form: str,
) -> None:  # fmt: skip
    """Attach scores from elsewhere, for policies and SQL.

    TABLE is a Parquet file, a folder or a glob of them. Each row of the pool takes the line with its key; a key that stands
    twice is refused. Given again under the same name, the newer table replaces the older one.
    `curate filter POOL --where "dfn_score > 0.2"` then decides by it.

    \b
    Examples:
      curate attach POOL punsafe.parquet --on url --as laion_safety --column punsafe
      curate attach POOL recap.parquet --on uid --as recap --column recap_caption=re_caption
      curate attach POOL metadata --on uid --as l14 --images l14_img --texts l14_txt
    """
    import curate

    with display() as progress:
        report = curate.open(pool, progress).attach(table, key, name, columns, key_column, images, texts)
    say(report, form)


@click.command()
@pool_argument
@overrides_argument
@format_option
def compact(pool: str, overrides: tuple[str, ...], form: str) -> None:
    """Copy the tables' many small files into few large ones.

    SQL, filter, funnel and report then read those, above all from an object store. The tables stay as they are, and so does what
    is done and what is not; parts that change afterwards are read from their own files until you compact again. The engine is that
    of the pool's last run; KEY=VALUE changes one of its settings, without the leading "engine.".

    \b
    Examples:
      curate compact POOL
      curate compact s3://bucket/pool workers=8
    """
    import curate
    from curate.settings import values

    with display() as progress:
        report = curate.open(pool, progress).compact(**values(overrides))
    say(report, form)
