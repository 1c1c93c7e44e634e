"""The k-th largest value by counting, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.filter.quantile import kth_largest

ODD = [0.0, -0.0, np.inf, -np.inf, 5e-324, -5e-324, 1.1754942e-38, 1e308, -1e308, 0.3, np.nextafter(0.3, 1), np.nextafter(0.3, 0)]


def by_sorting(values: np.ndarray, k: int) -> tuple[float, int]:
    value = float(np.sort(values)[::-1][k - 1])
    return value, int((values > value).sum())


def counted(values: np.ndarray, k: int, pieces: int) -> tuple[float, int]:
    return kth_largest(lambda: np.array_split(values, pieces), k)


@given(st.lists(st.one_of(st.sampled_from(ODD), st.floats(allow_nan=False)), min_size=1, max_size=60), st.data())
def test_the_kth_of_doubles_is_exact(values: list[float], data: st.DataObject) -> None:
    array = np.array(values, np.float64)
    k = data.draw(st.integers(1, len(values)))
    assert counted(array, k, data.draw(st.integers(1, 4))) == by_sorting(array, k)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60), st.data())
def test_the_kth_of_floats_is_exact(values: list[float], data: st.DataObject) -> None:
    array = np.array(values, np.float32)
    k = data.draw(st.integers(1, len(values)))
    assert counted(array, k, 2) == by_sorting(array, k)


@pytest.mark.parametrize("value", [0.25, -0.0, np.inf, 5e-324])
def test_equal_values_are_one_tie(value: float) -> None:
    assert counted(np.full(1000, value), 400, 3) == (value, 0)


def test_neighbouring_numbers_are_told_apart() -> None:
    values = np.array([np.nextafter(np.float32(0.3), np.float32(1)), np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(0))])
    assert [counted(values, k, 1) for k in (1, 2, 3)] == [by_sorting(values, k) for k in (1, 2, 3)]


@pytest.mark.parametrize("k", [0, 4])
def test_there_is_no_such_place(k: int) -> None:
    with pytest.raises(IndexError):
        counted(np.array([1.0, 2.0, 3.0]), k, 1)
