"""Fits how far a guess of a short text's language is to be trusted: `python -m tests.bench.languages [CLDR]`.

Texts are the names of emoji in 90 languages, as captions name what is to be seen: Debian's package unicode-cldr-core (Unicode licence),
one name or several with commas between, a third of them in title case. The half whose code points have an even checksum is fitted, the
other one told: tests/media/test_languages.py takes that half from another package. Half of the weight is on English, as about half
of LAION-5B's texts whose language was told are; all other languages weigh the same.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.media.text import calibrated, guess, reliability_features

CLDR = "/usr/share/unicode/cldr"
CODES = {"nb": "no", "fil": "tl", "zh_Hant": "zh"}  # as fastText calls them
FEWEST_NAMES = 900
TEXTS, ENGLISH_TEXTS = 500, 4000
BUCKETS = (0, 10, 20, 40, 10_000)  # letters

Array = NDArray[np.float64]


def is_fitted(code_points: str) -> bool:
    """Whether an emoji is in the half that is fitted."""
    return zlib.crc32(code_points.replace("\ufe0f", "").encode()) % 2 == 0


def texts(names: list[str], count: int, seed: str) -> Iterator[str]:
    """Captions made of one name or several."""
    draw = random.Random(seed)
    for number in range(count):
        text = ", ".join(draw.sample(names, draw.choice([1, 1, 1, 2, 2, 3, 4, 6])))
        yield text.title() if number % 3 == 0 else text


def names_by_language(folder: Path, fitted: bool) -> dict[str, list[str]]:
    """Names of emoji in each language that has most of them."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "common" / "annotations").glob("*.xml")):
        names = found.setdefault(CODES.get(path.stem, path.stem), {})
        for one in ET.parse(path).getroot().iter("annotation"):
            if one.get("type") == "tts" and one.text and "↑" not in one.text:
                names[one.get("cp", "")] = one.text.strip()
    known = {code: names for code, names in found.items() if len(names) >= FEWEST_NAMES and "_" not in code}
    return {code: [name for point, name in sorted(names.items()) if is_fitted(point) == fitted] for code, names in known.items()}


@dataclass(frozen=True)
class Guesses:
    """One value for each text: raw score, letters, whether English was guessed, whether the guess is right, the text's weight."""

    score: Array
    letters: NDArray[np.int64]
    english: NDArray[np.bool_]
    right: Array
    weight: Array

    def features(self) -> Array:
        """What is fitted."""
        return reliability_features(self.score, self.letters, self.english)

    def shipped(self) -> Array:
        """Probabilities as curate tells them."""
        return calibrated(self.score, self.letters, self.english)


def guessed(names: Mapping[str, list[str]]) -> Guesses:
    """Asks for the language of captions made of these names."""
    lines = []
    for code, own in names.items():
        count = ENGLISH_TEXTS if code == "en" else TEXTS
        weight = 1 / count if code == "en" else 1 / count / (len(names) - 1)
        for text in texts(own, count, code):
            found = guess(text)
            if found is not None:
                lines.append((found.score, found.letters, found.code == "en", float(found.code == code), weight))
    return Guesses(*(np.array(column) for column in zip(*lines, strict=True)))


def fit(given: Guesses) -> Array:
    """Coefficients of a logistic regression, by Newton's method."""
    features = given.features()
    solution = np.zeros(features.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-features @ solution))
        slope = features.T @ (given.weight * (given.right - chance))
        curve = (features * (given.weight * chance * (1 - chance))[:, None]).T @ features
        solution = solution + np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
    return solution


def reliability(chance: Array, given: Guesses) -> dict[str, dict[str, float]]:
    """By length: texts, how often the guess is right, and the expected calibration error over ten bins."""
    found = {}
    for low, high in itertools.pairwise(BUCKETS):
        inside = (given.letters > low) & (given.letters <= high)
        weight, right, bins = given.weight[inside], given.right[inside], np.minimum((chance[inside] * 10).astype(int), 9)
        gap = np.bincount(bins, weight * (chance[inside] - right), 10)
        accuracy, error = float(np.average(right, weights=weight)), float(np.abs(gap).sum() / weight.sum())
        found[f"{low + 1}-{high}"] = {"texts": int(inside.sum()), "right": round(accuracy, 3), "ece": round(error, 4)}
    return found


def main() -> None:
    """Prints coefficients and the reliability on the half that was not fitted."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else CLDR)
    solution = fit(guessed(names_by_language(folder, fitted=True)))
    held = guessed(names_by_language(folder, fitted=False))
    after = 1 / (1 + np.exp(-held.features() @ solution))
    for name, chance in (("raw", np.minimum(held.score, 1)), ("fitted", after), ("shipped", held.shipped())):
        print(json.dumps({"name": name, **reliability(chance, held)}))
    print(json.dumps({"name": "languages", "coefficients": [round(float(value), 3) for value in solution]}))


if __name__ == "__main__":
    main()
