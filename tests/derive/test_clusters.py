"""DataComp's image-based filter against its procedure in plain Python."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.cluster import fit
from curate.errors import IdentityError, SettingsError, UsageError
from curate.schema import resources
from tests.derive.pools import CLIP, build, column, derive, unit, vectors
from tests.shards import pools as shard_pools
from tests.shards.pools import Sample, sample_id

LONG = "a picture of words"
CAPTIONS = [LONG, "word", "two words", "ab cd", "a\nb cdef", "abcdefg\n", "a\u00a0bcdefg", "  spaced  ", ""]
PARTS = [
    [Sample(caption=CAPTIONS[n % len(CAPTIONS)], language="de" if n % 7 == 3 else "en") for n in range(60)],
    [Sample(reason="http_not_found") if n % 5 == 0 else Sample(caption=LONG) for n in range(40)],
]


def plain_nearest(vector: np.ndarray, centroids: np.ndarray) -> int:
    products = [float(vector @ centroid) for centroid in centroids]
    return products.index(max(products))


def settings(folder: Path, reference: np.ndarray, **more: object) -> dict[str, object]:
    np.save(folder / "reference.npy", reference)
    return {"clusters": {"reference": {"path": str(folder / "reference.npy")}, **more}}


def test_clusters_are_fitted_on_drawn_rows_and_named_by_the_reference(tmp_path: Path) -> None:
    pool, known = build(tmp_path / "pool", PARTS, dim=6)
    reference = vectors(99, 4, 6)
    said = settings(tmp_path, reference, count=9, iterations=4, sample=50, where="caption_language = 'en'", seed=2)
    assert derive(pool, "clusters", **said) == 2 and derive(pool, "clusters", **said) == 0
    english = [key for key in known if key[0] == 1 or key[1] % 7 != 3]
    drawn = sorted(english, key=lambda key: hashlib.md5(f"{sample_id(*key)}/2".encode()).hexdigest())[:50]
    centroids = fit(np.array([known[key][0] for key in drawn], np.float16), 9, 4, 2)  # itself held against plain loops in test_cluster
    named = {plain_nearest(one.astype(float), centroids) for one in reference}
    cluster, is_named = column(pool, "image_cluster", "scores_clusters"), column(pool, "image_cluster_named", "scores_clusters")
    for key in cluster:
        wanted = plain_nearest(unit(known[key][0]), centroids) if key in known else None
        assert cluster[key] == wanted and is_named[key] == (None if wanted is None else wanted in named)
    assert 0 < sum(map(bool, is_named.values())) < len(known)
    derive(
        pool,
        "given",
        clusters={**said["clusters"], "column": "given", "centroids": {"path": str(next((pool.path / "fitted").glob("*.npy")))}},
    )
    assert column(pool, "given", "scores_given") == cluster
    with pytest.raises(IdentityError, match="derived with other clusters: give those settings again, or another name"):
        derive(pool, "clusters", **settings(tmp_path, vectors(98, 4, 6), count=9))
    with pytest.raises(UsageError, match="1,000 clusters need as many images, and there are 92: say fewer"):
        derive(pool, "more", **settings(tmp_path, reference, count=1000, column="more"))
    with pytest.raises(UsageError, match="no column 'caption_lang'.*caption_language"):
        derive(pool, "more", **settings(tmp_path, reference, where="caption_lang = 'en'", column="more"))


def datacomp_image(sample: Sample, named: object) -> bool:
    """caption_filter of DataComp's baselines, and the cluster; fastText's tokens are words, and one for each line break."""
    tokens = len(sample.caption.replace("\n", " \0 ").replace("\0", "</s>").encode().split())
    return sample.language == "en" and tokens > 1 and len(sample.caption) > 5 and named is True


def test_the_presets_keep_what_the_published_rules_keep(tmp_path: Path) -> None:
    pool, known = build(tmp_path / "pool", PARTS, dim=6)
    derive(pool, "clusters", **settings(tmp_path, vectors(99, 3, 6), count=5, iterations=4))
    named = column(pool, "image_cluster_named", "scores_clusters")
    image = {key for key in known if datacomp_image(PARTS[key[0]][key[1]], named[key])}
    score = column(pool, CLIP, "scores_l14")
    ranked = sorted(known, key=lambda key: (-score[key], sample_id(*key)))
    best = set(ranked[: int(len(known) * 0.3 + 0.5)])
    opened = curate.open(pool.path)
    for name, wanted in {"datacomp_image": image, "datacomp_image_clip": image & best}.items():
        opened.filter(name)
        kept = {(line["part"], line["row"]) for line in opened.sql("SELECT part, row FROM samples WHERE keep", policy=name).rows()}
        assert kept == wanted and 0 < len(kept) < len(image | best)


def test_a_second_share_is_one_of_what_the_first_leaves_tie_by_tie(tmp_path: Path) -> None:
    pool = shard_pools.build(tmp_path / "pool", [[Sample()] * 40, [Sample()] * 37])
    keys, draw = [(0, row) for row in range(40)] + [(1, row) for row in range(37)], np.random.default_rng(6)
    loss, near = (dict(zip(keys, (draw.integers(0, 5, 77) / 10).tolist(), strict=True)) for _ in range(2))
    columns = {"sample_id": [sample_id(*key) for key in keys], "neg_clip_loss": list(loss.values()), "normsim_inf": list(near.values())}
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    opened = curate.open(pool.path)
    opened.attach(tmp_path / "scores.parquet", on="sample_id", name="given")
    first = sorted(keys, key=lambda key: (-loss[key], sample_id(*key)))[: int(77 * 0.3 + 0.5)]
    second = sorted(first, key=lambda key: (-near[key], sample_id(*key)))[: int(len(first) * 0.6667 + 0.5)]
    subset = opened.filter("neg_clip_loss_normsim").subset
    kept = {(line["part"], line["row"]) for line in opened.sql("SELECT part, row FROM samples WHERE keep").rows()}
    assert kept == set(second) and len(kept) == 15 and all(cut.ties_dropped for cut in subset.cuts)
    assert [(cut.of, cut.kept) for cut in subset.cuts] == [(77, 23), (23, 15)]
    assert opened.filter("neg_clip_loss", preview=True).subset.kept == 23
    fixed = opened.filter("neg_clip_loss_normsim", preview=True, loss_cut=0.3, fractions={"normsim_cut": 0.5}).subset
    passed = [key for key in keys if loss[key] >= 0.3]
    assert (fixed.cuts[0].of, fixed.kept) == (len(passed), int(len(passed) * 0.5 + 0.5))


def test_text_based_is_english_and_an_entity(tmp_path: Path) -> None:
    samples = [Sample(language=language) for language in ("en", "de") for _ in range(3)]
    pool = shard_pools.build(tmp_path / "pool", [samples])
    entity = [True, False, None] * 2
    table = pa.table({"sample_id": [sample_id(0, row) for row in range(6)], "caption_entity": pa.array(entity, pa.bool_())})
    pq.write_table(table, tmp_path / "entity.parquet")
    opened = curate.open(pool.path)
    opened.attach(tmp_path / "entity.parquet", on="sample_id", name="entity")
    opened.filter("datacomp_text")
    lines = opened.sql("SELECT keep, reason FROM samples ORDER BY row").rows()
    assert [line["reason"] for line in lines] == [None, "concept_none", "concept_none", *["caption_language"] * 3] and lines[0]["keep"]


def test_a_share_of_what_no_earlier_cut_leaves_is_refused(tmp_path: Path) -> None:
    pool = shard_pools.build(tmp_path / "pool", [[Sample()]])
    text = (resources("conf") / "policy" / "neg_clip_loss_normsim.sql").read_text()
    (tmp_path / "odd.sql").write_text(text.replace("left by clip_score_low", "left by clip_score_lo"))
    with pytest.raises(SettingsError, match="odd.sql, line 9: no fraction above is in rule 'clip_score_lo'; did you mean"):
        curate.open(pool.path).filter(str(tmp_path / "odd.sql"))
