import math

import numpy as np
import pytest

from transferlab.stats.rate_range import (
    diverged,
    exponential_rates,
    smoothed,
    steepest_fall,
    two_sided,
)


def test_rates_are_ends_and_equal_ratios() -> None:
    rates = exponential_rates(1e-7, 10.0, 100)
    assert rates[0] == pytest.approx(1e-7)
    assert rates[-1] == pytest.approx(10.0)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10 ** (8 / 99))


def test_smoothing_by_hand() -> None:
    assert smoothed([3.0, 1.0], beta=0.5).tolist() == pytest.approx([3.0, (0.5 * 3 + 1) / 1.5])
    assert smoothed([2.0] * 30).tolist() == pytest.approx([2.0] * 30)
    assert smoothed([3.0, 1.0, 7.0], beta=0.0).tolist() == pytest.approx([3.0, 1.0, 7.0])


def test_the_search_ends_at_four_times_the_best() -> None:
    assert diverged([1.0, 4.1], beta=0.0)
    assert not diverged([1.0, 3.9], beta=0.0)
    assert not diverged([5.0, 1.0], beta=0.0)
    assert not diverged([9.0], beta=0.0)
    assert not diverged([1.0, 4.1])  # once is not yet a rise of the smoothed loss
    assert diverged([1.0] * 50 + [9.0] * 50)


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_the_search_ends_where_the_loss_is_not_finite(last: float) -> None:
    assert diverged([last])
    assert diverged([1.0, 1.0, last])


@pytest.mark.parametrize("middle", [30, 50, 62])
def test_the_steepest_place_of_a_fall_is_its_middle(middle: int) -> None:
    steps = np.arange(100)
    fall = 2.3 - 2 / (1 + np.exp(-(steps - middle) / 6))
    noise = np.random.default_rng(0).normal(0, 0.02, 100)
    found = steepest_fall((fall + noise).tolist())
    assert found is not None
    assert abs(found - middle) <= 3


def test_what_follows_the_lowest_point_does_not_count() -> None:
    fall = np.concatenate([np.linspace(2.0, 1.0, 40), np.linspace(1.0, 9.0, 10), [9.0] * 20])
    wild = np.concatenate([fall, np.linspace(9.0, 1.5, 20)])
    found = steepest_fall(wild.tolist())
    assert found is not None
    assert found < 40


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    assert steepest_fall(np.linspace(1, 5, 60).tolist()) is None
    assert steepest_fall([1.0] * 60) is None
    assert steepest_fall([3.0, 1.0]) is None


def test_two_sided_smoothing_leaves_straight_lines_where_it_sees_both_sides() -> None:
    line = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(two_sided(line, 3)[20:-20], line[20:-20])
    np.testing.assert_allclose(two_sided([4.0] * 10), 4.0)
