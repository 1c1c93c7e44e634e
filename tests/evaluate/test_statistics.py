"""Intervals cover the truth as often as they say, comparisons are paired, and AUC is the Mann-Whitney statistic."""

from __future__ import annotations

import numpy as np
import pytest

from curate.errors import UsageError
from curate.evaluate.statistics import (
    _weighted_auc,
    bootstrap,
    difference_interval,
    mean_interval,
    roc_auc,
    roc_auc_interval,
)


def test_the_interval_of_a_mean_holds_the_truth_in_about_95_of_100_samples() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        found = mean_interval(random.random(200) < 0.3, seed, resamples=300)
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 199


def test_equal_seeds_give_equal_intervals_and_the_value_is_not_resampled() -> None:
    hits = np.random.default_rng(9).random(500) < 0.7
    assert mean_interval(hits, 3) == mean_interval(hits, 3)
    assert mean_interval(hits, 3).value == hits.mean()
    assert mean_interval(hits, 3) != mean_interval(hits, 4)


def test_chunks_of_resamples_add_up_to_what_was_asked_for() -> None:
    seen: list[int] = []

    def count(weights: np.ndarray) -> np.ndarray:
        seen.append(len(weights))
        return weights.sum(axis=1)

    found = bootstrap(count, items=3_000_000, resamples=5)
    assert sum(seen) == 1 + 5
    assert found.low == found.high == 3_000_000


def test_paired_difference_is_far_tighter_than_the_unpaired_spread() -> None:
    random = np.random.default_rng(0)
    hard = random.random(400)
    first, second = (hard < 0.62).astype(float), (hard < 0.60).astype(float)
    found = difference_interval(first, second)
    alone = mean_interval(first)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.high - found.low < 0.5 * (alone.high - alone.low)


def test_auc_counts_pairs_and_gives_ties_a_half() -> None:
    random = np.random.default_rng(1)
    scores, positive = random.integers(0, 12, 120), random.random(120) < 0.4
    ups, downs = scores[positive][:, None], scores[~positive][None, :]
    expected = ((ups > downs) + 0.5 * (ups == downs)).mean()
    assert roc_auc(scores, positive) == pytest.approx(expected)
    found = roc_auc_interval(scores, positive, seed=2)
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high


def test_auc_of_resamples_is_the_auc_of_the_repeated_items() -> None:
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    counts = np.array([2, 1, 3, 1])
    weighted = _weighted_auc(scores, positive)(counts[None, :].astype(float))[0]
    assert weighted == pytest.approx(roc_auc(np.repeat(scores, counts), np.repeat(positive, counts)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mean_interval([]), "no samples"),
        (lambda: difference_interval([1.0], [1.0, 2.0]), "same items"),
        (lambda: roc_auc([1.0, 2.0], [True, True]), "positive and negative"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(call, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says):
        call()
