"""negCLIPLoss against its definition, row by row in plain Python."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import curate
from curate.errors import IdentityError, UsageError
from curate.lease import claim
from curate.store import Pool
from tests.derive.pools import CLIP, build, column, derive, table, unit, vectors
from tests.shards.pools import Sample, sample_id

Key = tuple[int, int]
GONE = Sample(reason="http_not_found")
PARTS = [[Sample() for _ in range(9)], [Sample(), GONE, *(Sample() for _ in range(6))], [GONE, GONE]]


def loss(mine: Key, batch: Sequence[Key], known: Mapping[Key, np.ndarray], t: float) -> float:
    """negCLIPLoss of one row in one batch that it is in: its cosine less t / 2 times both log partition sums."""
    assert mine in batch
    image, text = (unit(side) for side in known[mine])
    to_texts = math.log(sum(math.exp(float(image @ unit(known[key][1])) / t) for key in batch))
    to_images = math.log(sum(math.exp(float(text @ unit(known[key][0])) / t) for key in batch))
    return float(image @ text) - t / 2 * (to_texts + to_images)


def drawn(known: Mapping[Key, np.ndarray], size: int, seed: int, number: int) -> list[Key]:
    """The rows that hash first."""
    digest = {key: hashlib.md5(f"{sample_id(*key)}/{seed}/{number}".encode()).hexdigest() for key in known}
    return sorted(known, key=lambda key: digest[key])[:size]


def with_mine(mine: Key, batch: list[Key]) -> list[Key]:
    return batch if mine in batch else [*batch[:-1], mine]


@pytest.mark.parametrize(("size", "repeats", "t"), [(5, 4, 0.07), (16, 1, 0.01), (2, 3, 1.0)])
def test_each_row_in_each_batch(tmp_path: Path, size: int, repeats: int, t: float) -> None:
    pool, known = build(tmp_path / "pool", PARTS)
    settings = {"temperature": t, "batch_size": size, "repeats": repeats, "seed": 3}
    assert derive(pool, "loss", neg_clip_loss=settings) == 3
    batches = [drawn(known, size, 3, number) for number in range(repeats)]
    found = column(pool, "neg_clip_loss", "scores_loss")
    assert {key for key, value in found.items() if value is not None} == known.keys()
    for key in known:
        wanted = np.mean([loss(key, with_mine(key, batch), known, t) for batch in batches])
        assert found[key] == pytest.approx(wanted, abs=2e-6), key
    assert not list((pool.path / "tmp").glob("*batches*"))


def test_a_pool_that_fits_into_a_batch_is_the_batch_whatever_the_seed(tmp_path: Path) -> None:
    pool, known = build(tmp_path / "pool", PARTS)
    for seed in (0, 1):
        derive(pool, f"loss_{seed}", neg_clip_loss={"repeats": 2, "seed": seed, "column": f"loss_{seed}"})
        found = column(pool, f"loss_{seed}", f"scores_loss_{seed}")
        assert all(found[key] == pytest.approx(loss(key, list(known), known, 0.01), abs=2e-6) for key in known)


def test_batches_that_are_drawn_once_rank_rows_as_the_papers_divisions_do(tmp_path: Path) -> None:
    """Algorithm 1 divides the pool into batches anew each time; both estimate one number, and agree within its spread."""
    pool, known = build(tmp_path / "pool", [[Sample()] * 300, [Sample()] * 340], dim=16)
    derive(pool, "loss", neg_clip_loss={"temperature": 0.1, "batch_size": 64, "repeats": 20})
    keys, draw = sorted(known), np.random.default_rng(0)
    images, texts = (np.array([unit(known[key][side]) for key in keys]) for side in (0, 1))
    products, owed = np.exp(images @ texts.T / 0.1), np.zeros((20, 640))
    for division in owed:
        for batch in np.split(draw.permutation(640), 10):
            inside = products[np.ix_(batch, batch)]
            division[batch] = 0.05 * (np.log(inside.sum(axis=1)) + np.log(inside.sum(axis=0)))
    published = (images * texts).sum(axis=1) - owed.mean(axis=0)
    found = column(pool, "neg_clip_loss", "scores_loss")
    ours = np.array([found[key] for key in keys])
    error = owed.std(axis=0) * math.sqrt(2 / 20)
    assert np.abs(ours - published).mean() < 2 * error.mean()
    assert np.corrcoef(ours.argsort().argsort(), published.argsort().argsort())[0, 1] > 0.99


def test_a_part_that_comes_later_meets_the_same_batches_and_a_row_that_left_is_in_none(tmp_path: Path) -> None:
    pool, known = build(tmp_path / "pool", PARTS)
    settings = {"temperature": 0.1, "batch_size": 6, "repeats": 2}
    derive(pool, "loss", neg_clip_loss=settings)
    first = column(pool, "neg_clip_loss", "scores_loss")
    assert derive(pool, "loss", neg_clip_loss=settings) == 0
    batches = [drawn(known, 6, 0, number) for number in range(2)]
    left = next(key for key in batches[0] if key[0] == 1)
    stored = vectors(1, 8, 2, 8)
    stored[[1, left[1]]] = 0
    with claim(pool, {}) as run:
        schema = pool.snapshot("scores_l14").schema
        run.add("scores_l14", schema)
        run.commit("scores_l14", [pool.write_part("scores_l14", 1, table(pool, 1, stored), "newer", schema)])
    assert derive(pool, "loss", neg_clip_loss=settings) == 1
    second = column(pool, "neg_clip_loss", "scores_loss")
    assert second[left] is None and all(second[key] == first[key] for key in known if key[0] == 0)
    for key in known:
        if key[0] == 1 and key != left:
            met = [[one for one in with_mine(key, batch) if one != left] for batch in batches]
            assert second[key] == pytest.approx(np.mean([loss(key, batch, known, 0.1) for batch in met]), abs=2e-6)


def test_other_settings_under_the_name_and_pools_without_embeddings_are_refused(tmp_path: Path) -> None:
    pool, _ = build(tmp_path / "pool", PARTS)
    opened = curate.open(pool.path)
    assert opened.derive("loss", neg_clip_loss={"batch_size": 6, "repeats": 1}).reasons == {"ok": 16}
    with pytest.raises(IdentityError, match="'scores_loss' of this pool was derived with other batches"):
        opened.derive("loss", neg_clip_loss={"batch_size": 7})
    with pytest.raises(IdentityError, match="was written with other derive_loss settings"):
        opened.derive("loss", neg_clip_loss={"batch_size": 6, "repeats": 1, "temperature": 0.02})
    assert opened.derive("loss", neg_clip_loss={"batch_size": 6, "repeats": 1}).parts == 0
    with pytest.raises(UsageError, match="'scores_loss' has a column 'neg_clip_loss' already: call it otherwise"):
        opened.derive("other", neg_clip_loss={"batch_size": 6, "repeats": 1})
    with pytest.raises(UsageError, match="embeddings of this pool are in l14: name one  .--of"):
        opened.derive("other", of="base", neg_clip_loss={})
    assert CLIP in Pool.open(pool.path).snapshot("scores_l14").schema.names
