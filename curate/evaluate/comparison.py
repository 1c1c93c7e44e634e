"""Whether models differ by more than chance, when each was trained several times and measured on the same items.

A figure is a mean over runs (seeds) and items (held-out images), and both are drawn from many that there might have been:
the crossed random effects of studies with several readers and cases (Dorfman, Berbaum and Metz 1992). The variance of the mean
of r runs and c items is (MS_runs + max(MS_items - MS_rest, 0)) / (r c), with the mean squares of the two-way table. Degrees of
freedom are r - 1: Hillis (2007) has more of them where items vary most, which at two or three runs rejects truths too often.
Where items add nothing this is Student's paired t over runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import t as student

from curate.errors import UsageError
from curate.evaluate.statistics import CONFIDENCE, Interval, Values

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, and the degrees of freedom of that error."""

    value: float
    error: float
    freedom: int

    def interval(self, level: float = CONFIDENCE) -> Interval:
        """Student's interval that holds the truth in `level` of all cases."""
        half = float(student.ppf((1 + level) / 2, self.freedom)) * self.error if self.error else 0.0
        return Interval(self.value, self.value - half, self.value + half)

    @property
    def p(self) -> float:
        """Two-sided p value of "the truth is 0"."""
        if not self.error:
            return float(self.value == 0)
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom))


@dataclass(frozen=True)
class Difference:
    """A difference that was tested among others.

    `p` is adjusted by Holm's procedure; the interval is at the level at which that procedure tested, so it excludes 0 exactly
    where `p` is below 0.05.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the interval excludes 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference"


def crossed(values: Values) -> Estimate:
    """The mean of `values` (runs, items) with its error over other runs and other items. Raises UsageError for a single run."""
    runs, items = values.shape
    if runs < 2:
        raise UsageError("an interval over runs needs at least two of them: give more seeds")
    by_run, by_item, mean = values.mean(axis=1), values.mean(axis=0), float(values.mean())
    of_runs = items * float(by_run.var(ddof=1))
    of_items = 0.0
    if items > 1:
        rest = values - by_run[:, None] - by_item[None, :] + mean
        of_items = runs * float(by_item.var(ddof=1)) - float((rest**2).sum()) / ((runs - 1) * (items - 1))
    total = of_runs + max(of_items, 0.0)
    return Estimate(mean, math.sqrt(total / (runs * items)), runs - 1)


def adjusted(estimates: Sequence[Estimate]) -> list[Difference]:
    """Each difference beside the others, by Holm (1979): the chance of any wrong verdict among them is at most 5 %."""
    order = sorted(range(len(estimates)), key=lambda at: estimates[at].p)
    found: dict[int, Difference] = {}
    left, highest, rejecting = len(estimates), 0.0, True
    for place, at in enumerate(order):
        one = estimates[at]
        highest = max(highest, min(1.0, (len(order) - place) * one.p))
        if rejecting:  # from the first that is not rejected on, all are judged at its level
            left = len(order) - place
            rejecting = one.p < (1 - CONFIDENCE) / left
        interval = one.interval(1 - (1 - CONFIDENCE) / left)
        found[at] = Difference(interval.value, interval.low, interval.high, highest)
    return [found[at] for at in range(len(estimates))]
