"""MetaCLIP's balancing against the published rule, computed entry by entry."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import curate
from curate.engines.base import EngineSettings
from curate.lease import claim
from curate.run import run_phase
from curate.score.caption import CaptionScorer
from curate.score.concepts import ConceptScorer
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from tests.score.pools import Row, jpeg, make_pool, noise

ENTRIES = 40
ROWS = 400
GERMAN = "das ist ein schönes Bild mit einem Wort namens"
ENGLISH = "this is a lovely picture of a thing with the name"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> curate.Pool:
    """Captions in two languages that name entries, the first ones often and the last ones hardly ever."""
    folder, draw = tmp_path_factory.mktemp("metaclip"), np.random.default_rng(2)
    chances = 1 / np.arange(1, ENTRIES + 1)
    image, rows = jpeg(noise(1)), []
    for number in range(ROWS):
        words = draw.choice(ENTRIES, size=draw.integers(0, 4), replace=False, p=chances / chances.sum())
        language = GERMAN if number % 3 == 0 else ENGLISH
        rows.append(Row(f"{language} {' '.join(f'w{word}' for word in words)} number {number}", None if number % 50 == 7 else image))
    made = make_pool(folder / "pool", [rows[:250], rows[250:]])
    (folder / "concepts.txt").write_text("\n".join(f"w{number}" for number in range(ENTRIES)))
    settings = ScoreSettings(image=None, caption=CaptionScorer(), concepts=ConceptScorer(path=str(folder / "concepts.txt")))
    with claim(made, {}) as run:
        run_phase(made, run, ScorePhase(settings), EngineSettings(workers=1))
    return curate.open(folder / "pool")


def published(pool: curate.Pool, tail: float, t: float) -> dict[str, dict[int, float]]:
    """Keep probability of each entry, by language: Algorithm 1 of MetaCLIP, with t from the tail as Meta CLIP 2 has it."""
    counts: dict[str, np.ndarray] = {}
    for line in pool.sql("SELECT caption_language AS l, concept_ids AS ids FROM samples WHERE tar_file IS NOT NULL").rows():
        for entry in line["ids"]:
            counts.setdefault(line["l"], np.zeros(ENTRIES))[entry] += 1
    found = {}
    for language, count in counts.items():
        ordered = np.sort(count[count > 0])
        share = np.cumsum(ordered) / ordered.sum()
        least = t or ordered[np.abs(share - tail).argmin()]
        found[language] = {entry: least / max(count[entry], least) for entry in np.flatnonzero(count)}
    return found


def uniform(sample_id: str, entry: int, seed: int) -> float:
    return int(hashlib.md5(f"{sample_id}/{entry}/{seed}".encode()).hexdigest()[:13], 16) / 2**52


@pytest.mark.parametrize(("tail", "t", "seed"), [(0.06, 0, 0), (0.2, 0, 3), (0.06, 8, 1)])
def test_each_pair_is_kept_as_its_draws_say(pool: curate.Pool, tail: float, t: float, seed: int) -> None:
    name = f"balanced_{seed}"
    pool.filter("metaclip", name=name, parameters={"tail": tail, "t": t, "seed": seed})
    chance = published(pool, tail, t)
    assert len(chance) == 2 and min(chance["en"].values()) < 0.5
    lines = pool.sql("SELECT sample_id, caption_language AS l, concept_ids AS ids, reason, tar_file, keep FROM samples", policy=name).rows()
    reasons = set()
    for line in lines:
        if line["tar_file"] is None:
            assert line["reason"] not in ("concept_none", "sampled_out")
            continue
        passed = [uniform(line["sample_id"], entry, seed) < chance[line["l"]][entry] for entry in line["ids"]]
        wanted = None if any(passed) else "sampled_out" if passed else "concept_none"
        assert line["reason"] == wanted and line["keep"] == (wanted is None)
        reasons.add(wanted)
    assert reasons == {None, "sampled_out", "concept_none"}


def test_counts_are_those_that_are_expected(pool: curate.Pool) -> None:
    """Over several seeds: the number kept lies within four standard errors of the sum of the pairs' chances."""
    chance, seeds = published(pool, 0.06, 0), range(10)
    lines = pool.sql("SELECT caption_language AS l, concept_ids AS ids FROM samples WHERE tar_file IS NOT NULL").rows()
    keeps = np.array([1 - np.prod([1 - chance[line["l"]][entry] for entry in line["ids"]]) for line in lines])
    kept = [pool.filter("metaclip", preview=True, parameters={"seed": seed}).subset.kept for seed in seeds]
    error = np.sqrt((keeps * (1 - keeps)).sum() / len(seeds))
    assert abs(np.mean(kept) - keeps.sum()) < 4 * error and len(set(kept)) > 3
