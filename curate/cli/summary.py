"""What stands at a terminal when a whole run is over: each step in a line or two, the funnel, where things lie, what next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate.cli.reports import counted, sentences

if TYPE_CHECKING:
    from curate.demo.run import DemoReport
    from curate.recipe import Job

CORPORA = {
    "openclipart": "real drawings from Debian packages, and planted trouble",
    "scenes": "drawn scenes with known noise, and planted trouble",
}
ONE_LINE = {"filter", "evaluate"}  # steps whose tables follow elsewhere on the page


def say_job(job: Job) -> None:
    """Prints what each step did, and the funnel when the run came as far as decisions."""
    for step, report in job.reports.items():
        told = sentences(report) or [str(report)]
        first, *more = told[:1] if step in ONE_LINE and "filter" in job.reports else told
        click.echo(f"{click.style(f'{step:<10}', bold=True)} {first}{click.style(_seconds(job, step, report), dim=True)}")
        for line in more:
            click.echo(f"{'':<10} {line}")
    if "filter" in job.reports:
        _say_funnel(job.pool.path)


def say_run(job: Job) -> None:
    """The end of `curate run`."""
    say_job(job)
    pool = shlex.quote(_short(job.pool.path))
    if "filter" in job.reports:
        _heading("Look around")
        click.echo(
            f'  curate report {pool}\n  curate sql {pool} "SELECT url, caption, reason FROM samples LIMIT 20"\n  curate verify {pool}'
        )


def say_demo(report: DemoReport) -> None:
    """The end of `curate demo`: also what was measured, and where everything lies."""
    say_job(report.job)
    _heading("Measured on held-out pictures, which the pool never saw")
    for line in sentences(report.job.reports.get("evaluate")) or ["nothing: the run did not evaluate"]:
        click.echo(f"  {line}")
    _heading("Where everything lies")
    for name, path, what in _places(report):
        click.echo(f"  {name:<11} {path}  {click.style(what, dim=True)}".rstrip())
    _heading("Try next")
    for line in _next(report):
        click.echo(f"  {line}")
    click.echo()
    if report.note:
        click.secho(report.note, fg="yellow")


def _places(report: DemoReport) -> Sequence[tuple[str, str, str]]:
    pool = Path(_short(report.job.pool.path))
    models = sorted(folder.name for folder in (report.job.pool.path / "models").iterdir() if folder.is_dir())
    requests = report.server_log.read_bytes().count(b"\n")
    log = str(pool / report.server_log.relative_to(report.job.pool.path))
    listed = str(pool / report.list_path.relative_to(report.job.pool.path))
    return [
        ("list", listed, CORPORA[report.corpus]),
        ("server log", log, f"{counted(requests, 'request')}, one a line"),
        ("tables", str(pool / "tables"), "Delta Lake; `samples` joins them all"),
        ("shards", str(pool / "shards"), "WebDataset tars with an index"),
        ("models", str(pool / "models"), f"{', '.join(models)}; open_clip reads them as local-dir:FOLDER"),
        ("report", str(pool / "report" / "index.html"), "open it in a browser"),
    ]


def _next(report: DemoReport) -> list[str]:
    """Three commands that are sure to work on what the demo left."""
    pool = shlex.quote(_short(report.job.pool.path))
    return [
        f'curate sql {pool} "SELECT caption, clip_score, reason FROM samples ORDER BY clip_score LIMIT 20"',
        f"curate filter {pool} demo fractions.clip_cut=0.5 --preview",
        f"curate history {pool} {shlex.quote(_some_url(report))}",
    ]


def _some_url(report: DemoReport) -> str:
    from curate.catalog.sql import query

    found = query(report.job.pool, "SELECT min(url) AS url FROM samples WHERE reason = 'duplicate'")
    other = query(report.job.pool, "SELECT min(url) AS url FROM samples WHERE url LIKE 'http%'")
    return str(found["url"][0].as_py() or other["url"][0].as_py())


def _say_funnel(path: Path) -> None:
    import curate

    click.echo(f"\n{curate.open(str(path)).funnel().text().rstrip()}")


def _heading(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


def _seconds(job: Job, step: str, report: object) -> str:
    """Of the step; a phase that bears its table's name knows its own."""
    seconds = job.seconds.get(step) or float(getattr(report, "seconds", 0.0))
    return f"  {seconds:.0f} s" if seconds >= 1 else ""


def _short(path: Path) -> str:
    """Relative to where the person stands, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
