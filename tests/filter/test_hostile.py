"""Every scorer, every derived number and every policy that ships, over pictures and captions of the worst kind."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.derive.counted import count_phrases
from curate.derive.phrases import Phrases
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.progress import Silent
from curate.score.classifier import Classifier
from curate.score.clip_scorer import ClipScorer, Mask
from curate.score.concepts import ConceptScorer
from curate.score.faces import FaceScorer
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.score.text import TextScorer
from curate.stage import Crew
from curate.store import Pool
from tests.decontaminate.planted import decontaminate
from tests.dedupe.arrays import inline
from tests.derive.pools import derive
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase, tiny_clip
from tests.score.test_phase import HOSTILE_CAPTIONS, HOSTILE_IMAGES
from tests.score.test_synsets import scorer, small_wordnet

POLICIES = sorted((Path(__file__).parents[2] / "conf" / "policy").glob("*.sql"))


def cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(3)).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Scored and derived from as far as the policies need it."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [Row(name, data) for name, data in {**HOSTILE_IMAGES, "cmyk": cmyk()}.items()]
    rows += [Row(text, jpeg(noise(4))) for text in HOSTILE_CAPTIONS] + [Row("gone", None), Row(None, None, "timeout_total")]
    pool = make_pool(folder / "pool", [rows, [Row("", None)], [Row("a dog in the snow", jpeg(noise(5)))]])
    (folder / "concepts.txt").write_text("dog\nx\nword\n一\n\u202e\n🎉\n")
    np.save(folder / "target.npy", np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32))
    score = ScorePhase(
        ScoreSettings(
            clip=ClipScorer(model="dfn", weights=str(tiny_clip(folder / "dfn")), batch_size=4),
            concepts=ConceptScorer(path=str(folder / "concepts.txt")),
            synsets=scorer(small_wordnet(folder)),
            text=TextScorer(),
            faces=FaceScorer(),
            classifiers={"nsfw": Classifier(form="open_nsfw")},
        )
    )
    run_phase(pool, score, score.schema)
    again = ClipScorer(model="dfn", weights=str(folder / "dfn"), mask=Mask(of="base"))
    masked = ScorePhase(ScoreSettings(name="masked", image=None, caption=None, clip=again))
    run_phase(pool, masked, masked.schema)
    target = {"path": str(folder / "target.npy")}
    said = {"of": "base", "clusters": {"reference": target, "count": 3}, "normsim": {"target": target}, "neg_clip_loss": {"batch_size": 4}}
    assert derive(pool, "more", **said) == 3
    with claim(pool, {}) as run:
        assert count_phrases(pool, run, "phrases", Phrases(captions=2), Crew(inline, 4), Silent()).recomputed
    for name, data in {**HOSTILE_IMAGES, "cmyk": cmyk(), "photo": jpeg(noise(5))}.items():
        (folder / "val").mkdir(exist_ok=True)
        (folder / "val" / f"{name}.jpg").write_bytes(data)
    decontaminate(pool, folder / "val", caption_words=3)
    return pool


def test_scores_are_numbers_or_null(hostile: Pool) -> None:
    for name in ("scores_base", "scores_masked", "scores_more", "scores_phrases"):
        table = hostile.snapshot(name).read()
        for column in table.column_names:
            if pa.types.is_floating(table[column].type):
                assert np.isfinite(table[column].drop_null().to_numpy()).all(), column


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_every_row_gets_one_fate_from_every_policy(hostile: Pool, policy: Path) -> None:
    name, mode = policy.stem, "quantile" if "-- fraction:" in policy.read_text() else "absolute"
    with claim(hostile, {}) as run:
        subset = filter_pool(hostile, run, FilterSettings.model_validate({"policy": name, "mode": mode})).subset
    assert subset.pending == 0
    decided = hostile.snapshot(f"decisions_{name}").read(["part", "row", "keep", "reason"]).to_pylist()
    assert len(decided) == subset.rows == hostile.snapshot("rows").read(["row"]).num_rows
    fates = Counter("kept" if line["keep"] else line["reason"] or "refused" for line in decided)
    assert fates["kept"] == subset.kept and fates["refused"] == subset.refused
    assert sum(fates.values()) - fates["kept"] - fates["refused"] == sum(subset.dropped.values())
