"""Training on what was packed or selected, and evaluating what was trained."""

from __future__ import annotations

import click

from curate.cli.options import format_option, overrides_argument, pool_argument
from curate.cli.output import say
from curate.cli.progress import display


@click.command()
@pool_argument
@click.option("--name", help="Of the run; its folder is POOL/models/NAME.")
@click.option("--subset", help="Packed subset to train on.  [the one packed last]")
@click.option("--where", metavar="CONDITION", help="Train on these rows of `samples` instead, straight from the fetched tars.")
@click.option("--like", metavar="NAME", help="Start from the values of conf/train/NAME.yaml.  [those of the pool's last run]")
@overrides_argument
def train(pool: str, name: str | None, subset: str | None, where: str | None, like: str | None, overrides: tuple[str, ...]) -> None:
    """Train a CLIP on packed shards or on a selection.

    Stopped, the same command resumes.

    \b
    Examples:
      curate train POOL
      curate train POOL --name tiny --like tiny_vit
      curate train POOL --name large-pictures --where "keep AND original_width >= 512" epochs=5 lr=1e-3
    """
    import curate
    from curate.settings import group, merged, values

    changes = merged(group("train", like) if like else {}, values(overrides))
    with display() as progress:
        report = curate.open(pool, progress).train(name=name, subset=subset, where=where, **changes)
    say(report)


@click.command("eval")
@pool_argument
@click.argument("model", required=False)
@click.option("--data", type=click.Path(), help="Held-out WebDataset tars, with .txt and .cls.txt.  [those of the pool's last run]")
@overrides_argument
@format_option
def evaluate(pool: str, model: str | None, data: str | None, overrides: tuple[str, ...], form: str) -> None:
    """Measure a model on a held-out split.

    Zero-shot classification and retrieval, with 95 % intervals.

    MODEL is the name of a training run or a folder; default the run trained last. The figures go to table `evaluations`.

    \b
    Examples:
      curate eval POOL
      curate eval POOL ./models/mine --data held_out/ --format json
    """
    import curate
    from curate.cli.options import split_name
    from curate.settings import values

    name, changes = split_name(model, overrides)
    with display() as progress:
        report = curate.open(pool, progress).evaluate(name, **values(changes) | ({"data": data} if data else {}))
    say(report, form)
