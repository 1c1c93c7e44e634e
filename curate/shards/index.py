"""`index.json` of a packed subset: what each shard holds, and how to tell that it is whole.

A subset's folder holds plain numbered files (`00000.tar`, `00000.parquet`, …), because that is what a brace pattern such
as `{00000..00041}.tar` in webdataset and open_clip means, and `sizes.json` beside them, where open_clip looks up how many
samples a shard has. The folder is written elsewhere and moved into place whole. Readers that began before an older folder
was replaced keep the files that they have open; what they open later does not match the index that they read, and they
say so.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from curate.bucket import upload
from curate.errors import AccountingError, UsageError
from curate.objects import ObjectPath
from curate.settings import Settings
from curate.store import file_sha256, sync_file, sync_folder

FORMAT = 1
_LAST = ("sizes.json", "index.json")
_FILE = re.compile(r"\d{5,9}\.(tar|parquet)")


class Shard(Settings):
    """One tar and the Parquet file with its samples' metadata."""

    tar: str
    samples: int = Field(ge=0)
    bytes: int
    sha256: str
    parquet: str
    parquet_bytes: int
    parquet_sha256: str

    @field_validator("tar", "parquet")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _FILE.fullmatch(name):
            raise ValueError(f"{name!r} is not a shard's file name")
        return name


class ShardIndex(Settings):
    """A packed subset."""

    format: int
    subset: str
    digest: str  # of the subset
    basis: str  # fingerprint of everything that the folder was made from
    mode: str
    seed: int
    shard_samples: int
    samples: int
    bytes: int
    shards: tuple[Shard, ...]


def shard_name(number: int, count: int) -> str:
    """Five digits, more when there are so many shards; all of one width, as a brace pattern needs them."""
    return f"{number:0{max(5, len(str(count - 1)))}d}"


def read_index(folder: Path) -> ShardIndex:
    """Reads `index.json`. Raises UsageError when there is none, AccountingError when it is damaged."""
    try:
        index = ShardIndex.model_validate_json((folder / "index.json").read_text())
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no packed shards: run  curate pack  first") from None
    except ValidationError as error:
        raise AccountingError(f"{folder / 'index.json'} is damaged: {error.errors()[0]['msg']}") from None
    if index.samples != sum(shard.samples for shard in index.shards) and index.mode == "copy":
        raise AccountingError(f"{folder / 'index.json'} is damaged: its shards do not hold {index.samples} samples")
    return index


def regular_file(path: Path, size_bytes: int) -> None:
    """Raises AccountingError unless `path` is a regular file of that size."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        raise AccountingError(f"shard file {path} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise AccountingError(f"shard file {path} is not a regular file")
    if found.st_size != size_bytes:
        raise AccountingError(f"shard file {path} has {found.st_size} bytes, not the {size_bytes} of its index")


def has_all_files(folder: Path, index: ShardIndex) -> bool:
    """Whether every shard is there in its full size."""
    try:
        for shard in index.shards:
            regular_file(folder / shard.tar, shard.bytes)
            regular_file(folder / shard.parquet, shard.parquet_bytes)
    except AccountingError:
        return False
    return True


def move_into_place(staging: Path, target: Path, aside: Path) -> None:
    """Puts the finished folder where the old one is, if any; between two renames no file of either is visible.

    An object store has no renames: there the old index goes first and the new one comes last, so that what lies in
    between is no packed subset to anybody.
    """
    if isinstance(target, ObjectPath):
        _upload(staging, target)
        return
    for path in staging.iterdir():
        sync_file(path)
    sync_folder(staging)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        os.rename(target, aside)
    os.rename(staging, target)
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _upload(staging: Path, target: ObjectPath) -> None:
    for name in _LAST:
        (target / name).unlink()
    new = {path.name: path for path in staging.iterdir()}
    for old in target.iterdir():
        if old.name not in new:
            old.unlink()
    for name in sorted(new.keys() - set(_LAST)) + [name for name in _LAST if name in new]:
        upload(new[name], target.bucket, (target / name).key, file_sha256(new[name]))


def train_command(folder: Path, index: ShardIndex) -> str:
    """The line that trains on these shards with open_clip's own program; empty when there is no tar.

    open_clip gives each worker whole shards and drops batches that it cannot fill: with two shards or more a worker, and
    batches no larger than a shard, every worker has some, even the one with the last, smaller shard.
    """
    if not index.shards:
        return ""
    first, last = (Path(index.shards[at].tar).stem for at in (0, -1))
    pattern = f"{folder}/{first}.tar" if first == last else f"{folder}/{{{first}..{last}}}.tar"
    if isinstance(folder, ObjectPath):  # webdataset reads object stores through a command
        pattern = f"pipe:aws s3 cp {pattern} -"
    workers, batch = max(1, min(4, len(index.shards) // 2)), min(256, index.shards[0].samples)
    return (
        f"python -m open_clip_train.main --dataset-type webdataset --train-data {shlex.quote(pattern)}"
        f" --train-num-samples {index.samples} --workers {workers} --batch-size {batch}"
        " --model ViT-B-32 --epochs 1"
    )
