"""Evaluation sets as they lie on a disk: a folder of images, WebDataset tars, CLIP_benchmark's folders of splits of tars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.errors import InputError, UsageError
from curate.evaluate.items import IMAGE_EXTENSIONS, captions_of, image_of, samples

_IMAGES = {f".{extension}" for extension in (*IMAGE_EXTENSIONS, "gif", "bmp")}


@dataclass(frozen=True)
class Evaluation:
    """A set and what it is called in the evidence."""

    name: str
    path: Path


@dataclass(frozen=True)
class Item:
    """One thing that a model is to be measured on; `name` is its place in the set."""

    name: str
    image: bytes | None
    captions: tuple[str, ...] = ()


def evaluations(said: tuple[str, ...]) -> list[Evaluation]:
    """Sets by PATH or NAME=PATH; a set is by itself called as its folder or tar. Raises UsageError, InputError."""
    if not said:
        raise UsageError("against what: name a folder of images, a tar or a folder of tars  (--against PATH)")
    found = [_evaluation(one) for one in said]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two evaluation sets are called {twice!r}: give them names  (--against NAME=PATH)")
    return found


def _evaluation(said: str) -> Evaluation:
    name, _, path = said.rpartition("=")
    whole = Path(said)
    chosen = Evaluation(whole.resolve().name, whole) if not name or whole.exists() else Evaluation(name, Path(path))
    if "/" in chosen.name:
        raise UsageError(f"{chosen.name}=: the name of an evaluation set has no /")
    if not chosen.path.exists():
        raise InputError(f"{chosen.path}: no file or folder is called so")
    return chosen


def items(evaluation: Evaluation) -> Iterator[Item]:
    """All items in the order of their names. Raises InputError when there is none, or a tar is damaged."""
    root = evaluation.path
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    tars = [path for path in files if path.suffix == ".tar"]
    images = [path for path in files if path.suffix.lower() in _IMAGES]
    if not tars and not images:
        raise InputError(f"{root}: holds neither images ({', '.join(sorted(_IMAGES))}) nor tars")
    for path in images:
        yield Item(_place(path, root), _read(path))
    for path in tars:
        for key, parts in samples(path):
            yield Item(f"{_place(path, root)}/{key}", image_of(parts), captions_of(parts))


def _place(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
