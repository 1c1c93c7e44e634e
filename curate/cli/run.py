"""The commands that run a whole recipe, and the one that says what a recipe would do."""

from __future__ import annotations

from pathlib import Path

import click

from curate.cli.options import overrides_argument
from curate.cli.output import say
from curate.cli.progress import display
from curate.cli.summary import say_demo, say_run

FOLDER = click.Path(file_okay=False, path_type=Path)
CORPORA = ["auto", "openclipart", "scenes"]


@click.command()
@click.option("--pool", type=FOLDER, default=Path("demo-pool"), help="Where to put it.  [demo-pool]")
@click.option("--corpus", type=click.Choice(CORPORA), default="auto", help="Real pictures (by apt-get), or drawn scenes.  [auto]")
@click.option("--size", type=click.Choice(["small", "full"]), default="full", help="How much of it.  [full]")
@overrides_argument
def demo(pool: Path, corpus: str, size: str, overrides: tuple[str, ...]) -> None:
    """Go the whole way on this machine, in minutes.

    A small web of real or drawn pictures with planted trouble is fetched, scored, filtered and packed; a CLIP is trained
    on what is left and evaluated; a report shows it all.

    \b
    Examples:
      curate demo
      curate demo --pool /tmp/demo
      curate demo --corpus scenes --size small
    """
    from curate.demo.run import run_demo

    with display() as progress:
        report = run_demo(pool, corpus, size, overrides, progress)
    say_demo(report)


@click.command()
@click.argument("recipe", default="ingest")
@overrides_argument
def check(recipe: str, overrides: tuple[str, ...]) -> None:
    """Show what a recipe would do; touches nothing.

    Prints its steps and every setting with its value.

    \b
    Examples:
      curate check ingest input.path=list.csv
      curate check ingest input.path=list.csv filter.policy=laion400m fetch.image.size=384
    """
    from curate.recipe import load_recipe, recipe_settings

    chosen = load_recipe(recipe)
    settings = recipe_settings(chosen, overrides)
    click.echo(f"recipe {chosen.name}: {' → '.join(chosen.names())}\n")
    say(settings)


@click.command()
@click.argument("recipe")
@click.option("--pool", required=True, type=FOLDER, help="The pool's folder; made when missing.")
@click.option("--engine", help="Values of conf/engine/NAME.yaml.")
@click.option("--only", metavar="PHASE", help="This step and no other.")
@click.option("--from", "start", metavar="PHASE", help="This step and those after it.")
@overrides_argument
def run(recipe: str, pool: Path, engine: str | None, only: str | None, start: str | None, overrides: tuple[str, ...]) -> None:
    """Run a recipe on a pool.

    What is done already is skipped; the same command resumes.

    RECIPE is a name in pipelines/ (ingest) or a Python file. KEY=VALUE changes a setting; `curate check RECIPE` lists them.

    \b
    Examples:
      curate run ingest --pool POOL input.path=list.csv
      curate run ingest --pool POOL input.path=laion.parquet input.sample=0.001 prefilter.where="similarity > 0.3 AND WIDTH >= 256"
      curate run ingest --pool POOL input.path=list.csv --from filter filter.policy=clip_top30
    """
    from curate.errors import SettingsError
    from curate.recipe import load_recipe, run_recipe

    if only and start:
        raise SettingsError("give --only or --from, not both")
    chosen = [f"engine={engine}"] if engine else []
    with display() as progress:
        job = run_recipe(load_recipe(recipe), pool, [*chosen, *overrides], only, start, progress)
    say_run(job)
