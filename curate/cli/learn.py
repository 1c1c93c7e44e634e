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


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="CONF... [KEY=VALUE]...")
@click.option("--pool", type=click.Path(file_okay=False), help="[the one that the file names]")
@format_option
def ablate(files: tuple[str, ...], pool: str | None, form: str) -> None:
    """Tell what policies are worth to a trained model.

    A small model is trained on what each policy keeps and on as many random rows, once a seed, and measured on held-out
    pictures. A difference is named only where its interval, adjusted for the number of comparisons, excludes 0. CONF is a
    name in conf/ablate or a YAML file. Stopped, the same command does what is missing.

    \b
    Examples:
      curate ablate conf/ablate/*.yaml
      curate ablate clip_fractions --pool POOL seeds=3 samples_seen=12800
    """
    import curate
    from curate.ablate.settings import pool_of
    from curate.errors import UsageError

    overrides = tuple(one for one in files if "=" in one)
    chosen = [one for one in files if "=" not in one]
    if not chosen:
        raise UsageError("name at least one ablation: a name in conf/ablate or a YAML file")
    for conf in chosen:
        place = pool or pool_of(conf, overrides)
        with display() as progress:
            report = curate.open(place, progress).ablate(conf, *overrides)
        say(report, form)
