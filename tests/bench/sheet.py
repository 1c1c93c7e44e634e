"""Contact sheets of merged clipart for a person to judge: `python -m tests.bench.sheet FOLDER`.

Groups the real clipart of the demo by pictures, as `curate dedupe` does (each file once: what has equal bytes needs no judge),
draws all merged groups, 40 to a picture, and writes `groups.csv`: one line for each in the order of the sheets, whose column
`verdict` (same, different) is for the person to fill in. A group of more than two shows its first picture and the one least
like it. The verdicts of the last review stand in `tests/dedupe/clipart_groups.csv`; those lines keep them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from curate.dedupe.settings import DedupeSettings
from curate.media.image import ImageSettings, MediaError, decode_rgb, prepare
from tests.dedupe.arrays import group
from tests.dedupe.planted import clipart, pictures_of, reviewed

COLUMNS, CELL, TITLE, ON_A_SHEET = 5, 150, 14, 40


Names = tuple[str, ...]
"""Of the pictures of a group, ascending."""


def merged(given: Sequence[tuple[str, bytes]], settings: DedupeSettings) -> list[Names]:
    """Groups of two and more pictures, of which not all have equal bytes."""
    names = [name for name, _ in given]
    found = group(pictures_of(names, [body for _, body in given]), settings)
    members: dict[int, list[str]] = {}
    for name, of, exact in zip(names, found.representative.tolist(), found.exact.tolist(), strict=True):
        if not exact:
            members.setdefault(of, []).append(name)
    return sorted(tuple(sorted(own)) for own in members.values() if len(own) > 1)


def readable(given: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Those that fetch would have stored."""

    def shown(body: bytes) -> bool:
        try:
            prepare(body, ImageSettings())
        except MediaError:
            return False
        return True

    return [(name, body) for name, body in given if shown(body)]


def draw(groups: Sequence[Names], bodies: dict[str, bytes], first: int) -> Image.Image:
    """One sheet; `first` is the number of its first group."""
    wide, tall = 2 * CELL + 12, CELL + TITLE
    sheet = Image.new("RGB", (COLUMNS * wide, -(-len(groups) // COLUMNS) * tall), (120, 120, 160))
    for place, one in enumerate(groups):
        left, top = place % COLUMNS * wide, place // COLUMNS * tall
        ImageDraw.Draw(sheet).text((left, top), f"{first + place} ({len(one)}) {one[0][-40:]}", fill=(255, 255, 0))
        for side, picture in enumerate(_two(one, bodies)):
            sheet.paste(picture, (left + side * (CELL + 4), top + TITLE))
    return sheet


def _two(one: Names, bodies: dict[str, bytes]) -> tuple[Image.Image, Image.Image]:
    """The first picture as it is stored, and the one least like it, at the size of a cell."""
    first, *others = (_cell(bodies[name]) for name in one)
    return first, max(others, key=lambda other: float(np.abs(_small(first) - _small(other)).sum()))


def _cell(body: bytes) -> Image.Image:
    picture = Image.fromarray(decode_rgb(prepare(body, ImageSettings()).data))
    scale = CELL / max(picture.size)
    return picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))), Image.Resampling.LANCZOS)


def _small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((32, 32)), np.float64)


def main() -> None:
    """Draws and writes."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("folder", type=Path)
    said = parser.parse_args()
    given = readable(list(clipart()))
    groups, bodies = merged(given, DedupeSettings()), dict(given)
    said.folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(groups), ON_A_SHEET):
        draw(groups[first : first + ON_A_SHEET], bodies, first).save(said.folder / f"sheet-{first // ON_A_SHEET}.png")
    verdicts = {line["pictures"]: line["verdict"] for line in reviewed()}
    with (said.folder / "groups.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("verdict", "pictures"))
        for one in groups:
            pictures = " ".join(one)
            lines.writerow((verdicts.get(pictures, ""), pictures))
    print(f"{len(given)} pictures, {len(groups)} merged groups; without a verdict: {sum(' '.join(one) not in verdicts for one in groups)}")


if __name__ == "__main__":
    main()
