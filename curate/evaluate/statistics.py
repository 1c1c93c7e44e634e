"""Intervals and comparisons: how far a figure would move on other samples, and whether two models differ.

Bootstrap intervals are percentile intervals (Efron 1979). A resample is a row of counts: how often each item was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import UsageError

Values = NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
_CHUNK_CELLS = 1 << 22  # counts held at a time


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[[Values], Values], items: int, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The statistic on the items as they are, and its interval over resamples of the same size with replacement.

    `statistic` takes counts (resamples, items) and gives (resamples,); NaN where a resample leaves it undefined.
    """
    if items == 0:
        raise UsageError("there is nothing to evaluate: no samples")
    value = float(statistic(np.ones((1, items)))[0])
    random = np.random.default_rng(seed)
    size = max(1, _CHUNK_CELLS // items)
    drawn = [statistic(_counts(random, items, min(size, resamples - done))) for done in range(0, resamples, size)]
    return _percentiles(value, np.concatenate(drawn))


def mean_interval(values: Sequence[float] | NDArray[np.generic], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Bootstrap interval of a mean, for example of hits (0 or 1)."""
    array = np.asarray(values, np.float64)
    return bootstrap(lambda counts: counts @ array / counts.sum(axis=1), len(array), seed, resamples)


def difference_interval(
    first: Sequence[float] | NDArray[np.generic], second: Sequence[float] | NDArray[np.generic], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Paired bootstrap of mean(first) - mean(second), both measured on the same items in the same order."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    _same_length(a, b)
    return mean_interval(a - b, seed, resamples)


def roc_auc(scores: Sequence[float] | NDArray[np.generic], positive: Sequence[bool] | NDArray[np.generic]) -> float:
    """Probability that a positive item scores above a negative one, ties counting half (Mann-Whitney U)."""
    return float(_weighted_auc(scores, positive)(np.ones((1, len(scores))))[0])


def roc_auc_interval(
    scores: Sequence[float] | NDArray[np.generic], positive: Sequence[bool] | NDArray[np.generic], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """`roc_auc` with its bootstrap interval."""
    return bootstrap(_weighted_auc(scores, positive), len(scores), seed, resamples)


def _weighted_auc(
    scores: Sequence[float] | NDArray[np.generic], positive: Sequence[bool] | NDArray[np.generic]
) -> Callable[[Values], Values]:
    array, is_positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    _same_length(array, is_positive)
    if is_positive.all() or not is_positive.any():
        raise UsageError("an AUC needs positive and negative samples")
    order = np.argsort(array, kind="stable")
    ranked, marks = array[order], is_positive[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # items of equal score form one step

    def auc(counts: Values) -> Values:
        weights = counts[:, order]
        above = np.add.reduceat(weights * marks, starts, axis=1)
        below = np.add.reduceat(weights * ~marks, starts, axis=1)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        return np.asarray(np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0), np.float64)

    return auc


def _counts(random: np.random.Generator, items: int, resamples: int) -> Values:
    return np.asarray(random.multinomial(items, np.full(items, 1 / items), size=resamples), np.float64)


def _percentiles(value: float, drawn: Values) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _same_length(first: NDArray[np.generic], second: NDArray[np.generic]) -> None:
    if len(first) != len(second):
        raise UsageError(f"paired figures must be on the same items: {len(first)} and {len(second)} were given")
