"""Commands for clusters without a driver: parts by range, one commit of all that was reported, templates for sbatch."""

from __future__ import annotations

from pathlib import Path

import click

from curate.cli.options import format_option, overrides_argument, pool_argument
from curate.cli.output import say
from curate.cli.progress import display


@click.command()
@click.argument("pool", type=click.Path(file_okay=False), required=False)
@click.argument("phase", type=click.Choice(["fetch", "score"]), required=False)
@click.option("--parts", metavar="A-B", help="These parts, both ends included.  [in a Slurm job this task's share, else all]")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes; 0 means one for each core that may be used.  [0]")
@click.option("--order", type=click.Path(file_okay=False, path_type=Path), hidden=True)  # how `--engine slurm` calls it
@overrides_argument
def work(pool: str | None, phase: str | None, parts: str | None, workers: int, order: Path | None, overrides: tuple[str, ...]) -> None:
    """Do some parts of a phase and leave reports; commit nothing.

    For many machines that share the pool's file system and no driver: each does a range of parts, `curate commit` takes
    what they reported into the tables. What is done, or reported, is skipped. Settings are those of the pool's last run;
    KEY=VALUE changes one, without the leading "fetch." or "score.".

    \b
    Examples:
      curate work POOL score --parts 0-249
      curate work POOL score --workers 8
    """
    import curate
    from curate.settings import values
    from curate.work import parts_said, work_order

    with display() as progress:
        if order is not None:
            say(work_order(order, progress))
            return
        if pool is None or phase is None:
            raise click.UsageError("name a pool and a phase, for example  curate work POOL score --parts 0-249")
        wanted = None if parts is None else parts_said(parts)
        report = curate.open(pool, progress).work(phase, wanted, workers, **values(overrides))
    say(report)


@click.command()
@pool_argument
@format_option
def commit(pool: str, form: str) -> None:
    """Take what workers reported into the tables.

    Under lease, in waves. Reports made from what has changed since are refused. Exit code 3 when parts are still to be done.

    \b
    Examples:
      curate commit POOL
      curate commit POOL --format json
    """
    import curate

    with display() as progress:
        report = curate.open(pool, progress).commit()
    say(report, form)
    report.require()


@click.command()
@click.argument("name", required=False)
def slurm(name: str | None) -> None:
    """Print a template for sbatch, to be adapted.

    \b
    Examples:
      curate slurm
      curate slurm array
    """
    from curate.errors import UsageError
    from curate.schema import nearest, resources

    files = {path.stem: path for path in sorted((resources("pipelines") / "slurm").glob("*.sbatch"))}
    if name is None:
        for stem, path in files.items():
            click.echo(f"{stem:<8} {path.read_text().splitlines()[1].lstrip('# ')}")
    elif name.removesuffix(".sbatch") in files:
        click.echo(files[name.removesuffix(".sbatch")].read_text(), nl=False)
    else:
        raise UsageError(f"no template is called {name!r}; there are {', '.join(files)}{nearest(name, list(files))}")
