"""Models that do not differ are told apart no more often than promised, and those that do are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curate.errors import UsageError
from curate.evaluate.comparison import Difference, Estimate, adjusted, crossed
from curate.evaluate.statistics import Values

T_4 = 2.776445105  # 97.5 % quantile of Student's t with 4 degrees of freedom, from a table


def hits(random: np.random.Generator, difficulty: Values, runs: int, better: float = 0.0) -> Values:
    """Hits (runs, items) of a model that was trained several times: seeds differ, and so do items from subset to subset."""
    items = difficulty + random.normal(0, 0.4, len(difficulty)) + better
    return (random.random((runs, len(difficulty))) < 1 / (1 + np.exp(-items - random.normal(0, 0.2, (runs, 1))))).astype(float)


def test_mean_and_error_are_those_of_the_two_way_table() -> None:
    values = np.random.default_rng(1).normal(0.1, 1, (5, 7)) + np.random.default_rng(2).normal(0, 2, 7)
    runs, items = range(5), range(7)
    mean = sum(values[r][c] for r in runs for c in items) / 35
    run_means = [sum(values[r][c] for c in items) / 7 for r in runs]
    item_means = [sum(values[r][c] for r in runs) / 5 for c in items]
    ms_runs = 7 * sum((m - mean) ** 2 for m in run_means) / 4
    ms_items = 5 * sum((m - mean) ** 2 for m in item_means) / 6
    ms_rest = sum((values[r][c] - run_means[r] - item_means[c] + mean) ** 2 for r in runs for c in items) / 24
    assert ms_items > ms_rest
    found = crossed(values)
    assert found.value == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt((ms_runs + ms_items - ms_rest) / 35))
    half = found.interval().high - found.value
    assert half == pytest.approx(T_4 * found.error)
    assert Estimate(half, found.error, 4).p == pytest.approx(0.05)


def test_where_items_add_nothing_it_is_the_paired_t_interval_of_the_textbook() -> None:
    differences = np.array([0.02, 0.04, 0.01, 0.05, 0.01])
    half = T_4 * differences.std(ddof=1) / np.sqrt(5)
    for items in (1, 6):
        found = crossed(np.tile(differences[:, None], items)).interval()
        assert (found.value, found.low, found.high) == pytest.approx((0.026, 0.026 - half, 0.026 + half))


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_equal_models_are_told_apart_in_at_most_5_of_100_cases(runs: int) -> None:
    random = np.random.default_rng(runs)
    difficulties = [random.normal(0, 1.5, 60) for _ in range(1000)]
    wrong = sum(crossed(hits(random, one, runs) - hits(random, one, runs)).p < 0.05 for one in difficulties)
    assert wrong <= 60  # 50 and a deviation and a half


def test_of_nine_equal_models_any_is_called_in_at_most_5_of_100_tables() -> None:
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        difficulty = random.normal(0, 1.5, 60)
        found = adjusted([crossed(hits(random, difficulty, 4) - hits(random, difficulty, 4)) for _ in range(9)])
        wrong += any(one.verdict != "no difference" for one in found)
    assert wrong <= 14  # 10 and a deviation and a bit


def test_a_real_difference_is_found_beside_others() -> None:
    random = np.random.default_rng(3)
    difficulty = random.normal(0, 1.5, 300)
    plain = hits(random, difficulty, 5)
    better, worse = hits(random, difficulty, 5, 1.5), hits(random, difficulty, 5, -1.5)
    equal = hits(random, difficulty, 5)
    found = adjusted([crossed(one - plain) for one in (equal, better, worse)])
    assert [one.verdict for one in found] == ["no difference", "better", "worse"]


def test_identical_figures_do_not_differ_at_all() -> None:
    same = crossed(np.zeros((3, 20)))
    assert same.p == 1 and adjusted([same]) == [Difference(0, 0, 0, 1)]
    assert adjusted([same])[0].verdict == "no difference"


def test_p_values_are_adjusted_as_holm_did_and_agree_with_the_intervals() -> None:
    estimates = [Estimate(value, 1.0, 30) for value in (0.1, 2.45, 4.5, -2.4, 2.9)]
    plain = [one.p for one in estimates]
    wanted, highest = {}, 0.0
    for place, at in enumerate(sorted(range(5), key=plain.__getitem__)):
        highest = max(highest, min(1.0, (5 - place) * plain[at]))
        wanted[at] = highest
    found = adjusted(estimates)
    assert [one.p for one in found] == pytest.approx([wanted[at] for at in range(5)])
    assert [one.verdict != "no difference" for one in found] == [one.p < 0.05 for one in found]
    assert [one.verdict for one in found].count("better") == 2 and sum(p < 0.05 for p in plain) == 4


def test_one_run_has_no_interval() -> None:
    with pytest.raises(UsageError, match="more seeds"):
        crossed(np.ones((1, 5)))
