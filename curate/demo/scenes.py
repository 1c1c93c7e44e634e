"""The generated corpus: rendered scenes with compositional captions, fixed noise, and the truth about each row.

Every row is decided before a pixel is drawn: its kind (see `KINDS`), its scene, and whether its caption was swapped
with another scene's. So tests can draw one row alone, and two corpora of equal settings are equal byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curate.demo.corpus import Answer, Corpus, CorpusWriter, Progress, silent
from curate.demo.render import BACKGROUNDS, COLOURS, SHAPES, SIZES, Pixels, Scene, Thing, brightened, encode_jpeg, render, resized
from curate.demo.settings import ScenesSettings
from curate.demo.wording import LANGUAGES, caption, near_duplicate, translated

KINDS = {
    "original": "a scene of its own",
    "exact_copy": "the bytes of an original under another address",
    "reencoded": "an original at another JPEG quality",
    "resized": "an original at 50 to 90 % of its sides",
    "brightness": "an original 5 to 10 % brighter or darker",
    "hue_change": "an original with one thing in another colour: not a duplicate, the caption differs",
    "near_duplicate_caption": "a scene of its own whose caption is almost another row's",
    "other_language": "a scene of its own with a caption in German, French, Spanish or Chinese",
    "too_small": "a scene of its own, 24 to 56 pixels wide",
    "opted_out": "a scene of its own whose server says X-Robots-Tag: noai",
    "dead": "a scene of its own whose server says 404 or 410",
}
DUPLICATE_KINDS = ("exact_copy", "reencoded", "resized", "brightness")
_REASONS = {"too_small": "image_small", "opted_out": "opt_out", "dead": "http_not_found"}
_SWAPPABLE = frozenset(KINDS) - {"near_duplicate_caption", "other_language"}


@dataclass(frozen=True)
class SceneRow:
    """One row of the list and the truth about it.

    `percent` is the size of a resized row, the gain of a brightness row, else 100. `source` is the index of the
    original that the row was made from; `duplicate_of` the same where the pictures count as duplicates.
    """

    index: int
    path: str
    kind: str
    scene: Scene
    caption: str
    true_caption: str
    language: str = "en"
    quality: int = 90
    percent: int = 100
    swapped: bool = False
    source: int | None = None

    @property
    def duplicate_of(self) -> int | None:
        """Index of the original that this row's picture duplicates."""
        return self.source if self.kind in DUPLICATE_KINDS else None

    @property
    def label(self) -> str | None:
        """Class name, for scenes of one thing: colour and shape."""
        things = self.scene.things
        return f"{things[0].colour} {things[0].shape}" if len(things) == 1 else None

    def pixels(self) -> Pixels:
        """The picture before JPEG, height x width x 3."""
        drawn = render(self.scene)
        if self.kind == "resized":
            return resized(drawn, self.percent)
        return brightened(drawn, self.percent) if self.kind == "brightness" else drawn

    def image_bytes(self) -> bytes:
        """The JPEG file that the server sends."""
        return encode_jpeg(self.pixels(), self.quality)


def scenes(rows: int, seed: int, split: str = "train") -> list[SceneRow]:
    """The rows of a corpus with the standard noise; split "eval" is clean and shares no scene seed with "train"."""
    return scene_rows(ScenesSettings.model_validate({"rows": rows, "seed": seed, "split": split}))


def scene_rows(settings: ScenesSettings) -> list[SceneRow]:
    """All rows, decided but not drawn, in list order."""
    kinds = _kinds(settings)
    originals = [index for index, kind in enumerate(kinds) if kind == "original"]
    recoloured = iter(_random(settings, 0, "recoloured").permutation(originals).tolist())  # each once: two could draw one colour
    made: dict[int, SceneRow] = {}
    for index in sorted(range(len(kinds)), key=lambda index: kinds[index] != "original"):
        random = _random(settings, index, "row")
        place = next(recoloured) if kinds[index] == "hue_change" else originals[int(random.integers(0, len(originals)))]
        source = made[place] if kinds[index] != "original" else None
        made[index] = _row(settings, index, kinds[index], source, random)
    rows = [made[index] for index in range(len(kinds))]
    return _swap(rows, settings) if settings.split == "train" else rows


def build(folder: Path, settings: ScenesSettings, progress: Progress = silent) -> Corpus:
    """Draws the corpus into `folder`, replacing what is there."""
    rows = scene_rows(settings)
    with CorpusWriter(folder) as writer:
        places: dict[int, tuple[int, int]] = {}
        for row in sorted(rows, key=lambda row: row.kind == "exact_copy"):
            places[row.index] = places[row.source] if row.kind == "exact_copy" and row.source is not None else _draw(writer, row)
            progress("drawing scenes", len(places), len(rows))
        for row in rows:
            writer.answer(row.path, _answer(row, places[row.index]))
            writer.row(row.path, row.caption, {"label": row.label}, _truth(row, rows))
    return Corpus.open(folder)


def cached(folder: Path, settings: ScenesSettings, progress: Progress = silent) -> Corpus:
    """The corpus for these settings below `folder`, drawn only when it is not there yet."""
    name = f"scenes-{hashlib.sha256((settings.model_dump_json() + _VERSION).encode()).hexdigest()[:16]}"
    path = folder / name
    return Corpus.open(path) if path.exists() else build(path, settings, progress)


_VERSION = "2"  # raised when equal settings would draw another corpus


def _draw(writer: CorpusWriter, row: SceneRow) -> tuple[int, int]:
    return (0, 0) if row.kind == "dead" else writer.body(row.image_bytes())


def _kinds(settings: ScenesSettings) -> list[str]:
    """The kind of each row: exact counts, places by a seeded shuffle."""
    if settings.split == "eval":
        return ["original"] * settings.rows
    fractions = {kind: settings.duplicates / len(DUPLICATE_KINDS) for kind in DUPLICATE_KINDS}
    fractions |= {
        "hue_change": settings.hue_changes,
        "near_duplicate_caption": settings.near_duplicate_captions,
        "other_language": settings.other_languages,
        "too_small": settings.too_small,
        "opted_out": settings.opted_out,
        "dead": settings.dead,
    }
    kinds = [kind for kind, fraction in fractions.items() for _ in range(round(fraction * settings.rows))]
    kinds += ["original"] * (settings.rows - len(kinds))
    order = _random(settings, 0, "kinds").permutation(len(kinds))
    return [kinds[place] for place in order]


def _row(settings: ScenesSettings, index: int, kind: str, source: SceneRow | None, random: np.random.Generator) -> SceneRow:
    path = f"/scenes/{settings.split}-{settings.seed}/{_seed(settings, index, 'path'):016x}.jpg"
    if source is not None and kind in DUPLICATE_KINDS:
        return _duplicate(source, index, path, kind, random)
    scene = _scene(settings, index, kind, random)
    if source is not None and kind == "hue_change":
        scene = _recoloured(source.scene, random)
    text = true = caption(scene, random)
    language = "en"
    if source is not None and kind == "near_duplicate_caption":
        scene = replace(scene, things=source.scene.things, relation=source.scene.relation, third=source.scene.third)
        scene = replace(scene, background=source.scene.background)
        true = source.true_caption
        text = near_duplicate(true, random)
    if kind == "other_language":
        language = LANGUAGES[int(random.integers(0, len(LANGUAGES)))]
        text = true = translated(scene, language)
    origin = source.index if source is not None and kind in ("hue_change", "near_duplicate_caption") else None
    return SceneRow(index, path, kind, scene, text, true, language, int(random.integers(85, 93)), source=origin)


def _duplicate(source: SceneRow, index: int, path: str, kind: str, random: np.random.Generator) -> SceneRow:
    """Another row of the same scene; its caption is worded anew, as another page would."""
    percents = {"resized": int(random.integers(50, 91)), "brightness": 100 + int(random.integers(5, 11)) * int(random.choice([-1, 1]))}
    quality = source.quality if kind == "exact_copy" else int(random.integers(70, 84)) if kind == "reencoded" else 90
    text = caption(source.scene, random)
    return replace(
        source, index=index, path=path, kind=kind, caption=text, true_caption=text, quality=quality,
        percent=percents.get(kind, 100), source=source.index,
    )  # fmt: skip


def _scene(settings: ScenesSettings, index: int, kind: str, random: np.random.Generator) -> Scene:
    number = int(random.choice([1, 2, 2, 3]))
    colours = random.permutation(list(COLOURS))[:number].tolist()
    shapes = random.choice(SHAPES, number).tolist()
    things = tuple(Thing(colour, shape, str(random.choice(SIZES))) for colour, shape in zip(colours, shapes, strict=True))
    relation = str(random.choice(["left", "right", "above", "below"])) if number > 1 else None
    across = ["above", "below"] if relation in ("left", "right") else ["left", "right"]
    third = str(random.choice(across)) if number > 2 else None
    width, height = _sides(settings, kind, random)
    background = str(random.choice(BACKGROUNDS))
    return Scene(_seed(settings, index, "scene"), width, height, background, things, relation, third)


def _sides(settings: ScenesSettings, kind: str, random: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels; small pictures are more frequent than large ones, as on the web."""
    if kind == "too_small":
        return int(random.integers(24, 57)), int(random.integers(24, 57))
    low, high = settings.min_side_pixels, settings.max_side_pixels
    shorter = low + (high - low) * 3 // 4 * int(random.integers(0, 1001)) ** 2 // 1_000_000
    longer = min(high, shorter * int(random.integers(100, 134)) // 100)
    return (longer, shorter) if random.integers(0, 2) else (shorter, longer)


def _recoloured(scene: Scene, random: np.random.Generator) -> Scene:
    """The same layout and texture with one thing in a colour that the scene did not have."""
    place = int(random.integers(0, len(scene.things)))
    used = {thing.colour for thing in scene.things}
    colour = str(random.choice([colour for colour in COLOURS if colour not in used]))
    things = [replace(thing, colour=colour) if at == place else thing for at, thing in enumerate(scene.things)]
    return replace(scene, things=tuple(things))


def _swap(rows: list[SceneRow], settings: ScenesSettings) -> list[SceneRow]:
    """Permutes the captions of the swapped fraction so that no row's new caption shares a thing with its scene."""
    random = _random(settings, 0, "swap")
    able = [row.index for row in rows if row.kind in _SWAPPABLE]
    chosen = random.permutation(able)[: round(settings.swapped * len(rows))].tolist()
    taken = random.permutation(chosen).tolist()
    _untangle(rows, chosen, taken)
    swapped = list(rows)
    for index, other in zip(chosen, taken, strict=True):
        if _foreign(rows[index], rows[other]):
            swapped[index] = replace(rows[index], caption=rows[other].true_caption, swapped=True)
    return swapped


def _untangle(rows: list[SceneRow], chosen: list[int], taken: list[int]) -> None:
    """Exchanges captions between pairs of rows until every one is wrong; a corpus of a handful of rows may keep some true."""
    for place, index in enumerate(chosen):
        if _foreign(rows[index], rows[taken[place]]):
            continue
        for other, partner in enumerate(chosen):
            if _foreign(rows[index], rows[taken[other]]) and _foreign(rows[partner], rows[taken[place]]):
                taken[place], taken[other] = taken[other], taken[place]
                break


def _foreign(row: SceneRow, other: SceneRow) -> bool:
    """Whether the other row's caption names no thing (colour and shape) that this row's scene shows."""
    return not {(t.colour, t.shape) for t in row.scene.things} & {(t.colour, t.shape) for t in other.scene.things}


def _answer(row: SceneRow, place: tuple[int, int]) -> Answer:
    if row.kind == "dead":
        return Answer("ok", 404 if row.index % 2 else 410)
    headers = [("Content-Type", "image/jpeg")]
    if row.kind == "opted_out":
        headers.append(("X-Robots-Tag", "noai"))
    return Answer("ok", 200, tuple(headers), *place)


def _truth(row: SceneRow, rows: list[SceneRow]) -> dict[str, object]:
    def path(index: int | None) -> str | None:
        return None if index is None else rows[index].path

    things = [[thing.size, thing.colour, thing.shape] for thing in row.scene.things]
    return {
        "kind": row.kind,
        "true_caption": row.true_caption,
        "swapped": row.swapped,
        "language": row.language,
        "scene_id": f"{row.scene.seed:016x}",
        "objects": json.dumps({"things": things, "relation": row.scene.relation, "third": row.scene.third}),
        "made_from": path(row.source),
        "duplicate_of": path(row.duplicate_of),
        "expected_reason": _REASONS.get(row.kind),
    }


def _seed(settings: ScenesSettings, index: int, purpose: str) -> int:
    """64 bits of sha256 over seed, split, row and purpose."""
    text = f"{settings.seed}/{settings.split}/{index}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _random(settings: ScenesSettings, index: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(_seed(settings, index, purpose))


def iterate(rows: list[SceneRow]) -> Iterator[tuple[Pixels, str, str | None]]:
    """Pictures with true captions and labels, drawn one by one; for evaluation without a server."""
    for row in rows:
        yield row.pixels(), row.true_caption, row.label
