"""Single steps on a pool that exists: each reads stored tables, so none of them fetches anything again."""

from __future__ import annotations

from pathlib import Path

import click

from curate.cli.options import format_option, overrides_argument, pool_argument, split_name
from curate.cli.output import say
from curate.cli.progress import display


@click.command()
@pool_argument
@click.option("--name", help="Of the new table scores_NAME; one CLIP model a table.")
@click.option("--model", help="An open_clip architecture, for example ViT-L-14.")
@click.option("--weights", help="One of its tags, for example openai; hf-hub:OWNER/NAME; or a folder with safetensors.")
@overrides_argument
def score(pool: str, name: str | None, model: str | None, weights: str | None, overrides: tuple[str, ...]) -> None:
    """Compute numbers about images and captions.

    Settings are those of the pool's last run; KEY=VALUE changes one, without the leading "score.".

    \b
    Examples:
      curate score POOL --name l14 --model ViT-L-14 --weights openai
      curate score POOL --name text text.letters=2 image=null caption=null clip=null
      curate score POOL --name sscd image=null caption=null clip=null descriptor.path=sscd_disc_mixup.torchscript.pt
    """
    import curate
    from curate.settings import values

    changes = dict(values(overrides))
    if name:
        changes["name"] = name
    with display() as progress:
        report = curate.open(pool, progress).score(model=model, weights=weights, **changes)
    say(report)


@click.command()
@pool_argument
@click.option("--name", required=True, help="Of the new table scores_NAME.")
@click.option("--of", default="", help="Whose embeddings: table scores_OF; by itself the only one that has any.")
@overrides_argument
def derive(pool: str, name: str, of: str, overrides: tuple[str, ...]) -> None:
    """Compute scores from stored embeddings or captions.

    No image is read and no CLIP model called. KEY=VALUE says what: clusters (DataComp's image-based filter), normsim,
    neg_clip_loss, heads (aesthetic, nsfw, … from a file of weights); or phrases (how often a caption, and the runs of words in it,
    stand in the whole pool).

    \b
    Examples:
      curate derive POOL --name phrases phrases.captions=100
      curate derive POOL --name looks --of l14 heads.aesthetic.path=sa_0_4_vit_l_14_linear.pth
      curate derive POOL --name clusters clusters.reference.path=imagenet.npy clusters.count=1000
    """
    import curate
    from curate.settings import values

    with display() as progress:
        report = curate.open(pool, progress).derive(name, of, **values(overrides))
    say(report)


@click.command()
@pool_argument
@overrides_argument
def dedupe(pool: str, overrides: tuple[str, ...]) -> None:
    """Find rows that show or say the same.

    Equal bytes, and re-encoded, resized or brightened copies; with by=captions, captions that are equal or share most of
    their runs of characters; with by=embeddings, pictures that mean the same to the CLIP model that scored them (SemDeDup);
    with by=copies, copies that may be cut at their borders, named by a descriptor (SSCD or the like) and borne out by the pixels.
    A policy takes the groups that groups=NAME says.

    \b
    Examples:
      curate dedupe POOL by=captions captions.jaccard=0.8
      curate dedupe POOL by=embeddings semantic.epsilon=0.03 semantic.keep=best
      curate dedupe POOL by=copies scores=sscd
    """
    import curate
    from curate.settings import values

    with display() as progress:
        report = curate.open(pool, progress).dedupe(**values(overrides))
    say(report)


@click.command()
@pool_argument
@click.option("--against", multiple=True, required=True, metavar="[NAME=]PATH", help="An evaluation set; may be repeated.")
@click.option("--clear", metavar="FILE", help="What was looked at and cleared: a sample_id, an item, or both with a tab, a line.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with both pictures side by side.")
@click.option("--reveal", is_flag=True, help="Show flagged and unscored images unblurred.")
@overrides_argument
@format_option
def decontaminate(
    pool: str, against: tuple[str, ...], clear: str | None, output: Path | None, reveal: bool, overrides: tuple[str, ...], form: str
) -> None:  # fmt: skip
    """Find rows that show or say what evaluation sets do.

    PATH is a folder of images, a WebDataset tar, or a folder of tars at any depth, as CLIP_benchmark has them. Found are equal bytes,
    pictures with a near perceptual hash or descriptor whose pixels bear it out and, with caption_words=13, captions with as many words
    in a row. Column contaminated is for policies (decontaminated.sql is one), contamination holds the evidence. Each call replaces
    what the last one found.

    \b
    Examples:
      curate decontaminate POOL --against imagenet/val --against coco=wds_mscoco/test -o contamination.html
      curate decontaminate POOL --against imagenet/val --clear looked_at.txt caption_words=13
    """
    import curate
    from curate.settings import values

    with display() as progress:
        report = curate.open(pool, progress).decontaminate(against, clear, output, reveal, **values(overrides))
    say(report, form)


@click.command("filter")
@pool_argument
@click.argument("policy", required=False)
@overrides_argument
@click.option("--where", metavar="CONDITION", help="Instead of a policy: what a kept row must satisfy.")
@click.option("--preview", is_flag=True, help="Count only; write nothing.")
@format_option
def filter_(pool: str, policy: str | None, overrides: tuple[str, ...], where: str | None, preview: bool, form: str) -> None:
    """Decide from stored numbers which rows to keep.

    Takes seconds: no request, no model.

    POLICY is a name in conf/policy or a .sql file. KEY=VALUE sets one of its parameters, or mode, name, groups,
    representative, fractions.PARAMETER, memory_bytes (of the SQL; the rest goes to disk).

    \b
    Examples:
      curate filter POOL laion400m clip_cut=0.28
      curate filter POOL clip_top30 fractions.clip_cut=0.2 --preview
      curate filter POOL --where "clip_score > 0.3 AND original_width >= 256" name=sharp
    """
    import curate
    from curate.settings import values

    name, changes = split_name(policy, overrides)
    with display() as progress:
        report = curate.open(pool, progress).filter(name or "", where=where or "", preview=preview, **values(changes))
    say(report, form)


@click.command()
@pool_argument
@click.argument("subset", required=False)
@overrides_argument
def pack(pool: str, subset: str | None, overrides: tuple[str, ...]) -> None:
    """Write the kept samples as WebDataset shards.

    With an index, and a line that trains on them.

    SUBSET is the name of a policy that was applied; default the last one.

    \b
    Examples:
      curate pack POOL
      curate pack POOL laion400m shard_samples=5000
      curate pack POOL laion400m blur=face_boxes
    """
    import curate
    from curate.settings import values

    name, changes = split_name(subset, overrides)
    with display() as progress:
        report = curate.open(pool, progress).pack(name, **values(changes))
    say(report)
