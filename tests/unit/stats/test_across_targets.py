import warnings
from math import isnan

import numpy as np
import pytest
from scipy.stats import rankdata, trim_mean, ttest_1samp

from transferlab.stats.across_targets import (
    across_targets,
    interquartile_mean,
    iqm_interval,
    judge_across,
    t_interval,
)

# Accuracy with 1,000 training images on the 19 tasks of the VTAB leaderboard, ResNet-50, in
# percent: Zhai et al. 2019, google-research/task_adaptation, docs/data/results.csv.
SCRATCH = [
    13.17, 38.24, 75.62, 38.85, 55.19, 26.56, 20.58, 84.95, 40.22, 42.71, 12.06, 42.63, 72.57,
    66.07, 5.02, 78.43, 39.15, 30.08, 37.61,
]  # fmt: skip
VTAB = {
    "sup_100": [
        57.03, 90.95, 80.61, 40.96, 56.11, 36.29, 66.01, 95.31, 88.61, 70.57, 89.87, 80.84, 73.20,
        87.32, 34.41, 85.73, 45.96, 45.74, 35.44,
    ],
    "jigsaw": [
        18.93, 66.73, 76.04, 42.82, 55.89, 30.47, 51.38, 91.54, 66.06, 68.20, 37.47, 66.17, 72.36,
        55.14, 12.08, 69.53, 35.02, 44.88, 36.31,
    ],
    "vae": [
        9.89, 34.31, 72.59, 36.79, 61.21, 26.72, 10.27, 73.15, 18.25, 42.88, 9.39, 23.54, 67.74,
        49.34, 4.49, 89.85, 23.02, 35.56, 37.49,
    ],
}  # fmt: skip


def exact_signed_rank(gains: list[float]) -> float:
    """Two-sided p by all 2^K signs, zeros counted half on either side."""
    values = np.asarray(gains)
    ranks = rankdata(np.abs(values))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(values))).reshape(len(values), -1)
    sums = ranks @ signs
    seen = float(ranks[values > 0].sum())
    lower, upper = (sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean()
    return min(1.0, 2 * float(min(lower, upper)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [(range(8), 3.5), ([1, 2, 3], 2.0), ([0, 1, 2, 100], 1.5), ([7.0], 7.0), ([9, 0, 0, 0], 0.0)],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(list(values)) == pytest.approx(expected)


def test_interquartile_mean_is_scipys_trimmed_mean() -> None:
    for K in range(1, 30):
        values = np.random.default_rng(K).normal(size=K)
        assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))


def test_the_interval_of_the_mean_is_students() -> None:
    values = np.random.default_rng(1).normal(size=9)
    reference = ttest_1samp(values, 0.0).confidence_interval()
    assert t_interval(values) == pytest.approx((reference.low, reference.high))


def test_one_to_six_in_closed_form() -> None:
    found = across_targets([1, 2, 3, 4, 5, 6])
    half = 2.5705818 * np.sqrt(3.5 / 6)  # t with 5 degrees of freedom, variance 3.5
    assert found.ci95 == pytest.approx((3.5 - half, 3.5 + half))
    assert found.p == found.smallest_p == pytest.approx(2 / 2**6)
    assert (found.worse, found.better, found.direction) == (0, 6, 1)


@pytest.mark.parametrize("seed", range(4))
def test_p_is_that_of_all_signs(seed: int) -> None:
    gains = np.random.default_rng(seed).normal(0.4, 1.0, size=8)
    assert across_targets(gains).p == pytest.approx(exact_signed_rank(list(gains)))


def test_the_vtab_leaderboard_as_published() -> None:
    gains = {name: np.subtract(own, SCRATCH) for name, own in VTAB.items()}
    found = dict(zip(gains, judge_across(list(gains.values())), strict=True))
    assert found["sup_100"].mean == pytest.approx(23.22, abs=0.01)
    assert found["sup_100"].ci95 == pytest.approx((12.4, 34.0), abs=0.05)
    assert {name: one.worse for name, one in found.items()} == {
        "sup_100": 1,
        "jigsaw": 5,
        "vae": 14,
    }
    assert found["jigsaw"].mean == pytest.approx(9.33, abs=0.01)
    assert found["vae"].mean == pytest.approx(-4.91, abs=0.01)
    assert found["vae"].ci95 == pytest.approx((-9.2, -0.6), abs=0.05)
    assert found["vae"].p == pytest.approx(0.032, abs=0.0005)
    assert found["vae"].verdict == "negative"
    assert found["vae"].p_holm == found["vae"].p, "the largest p of three stays as it is"


def test_holm_runs_over_the_declared_family() -> None:
    clear, weak = np.arange(1.0, 11.0), np.array([-1, -2, 3, 4, 5, 6, 7.0])
    first, second = judge_across([clear, weak], m=5)
    assert first.p_holm == pytest.approx(5 * first.p)
    assert second.p_holm == pytest.approx(min(1.0, 4 * second.p))
    assert (first.verdict, second.verdict) == ("positive", "inconclusive")
    assert judge_across([-clear])[0].verdict == "negative"
    with pytest.raises(ValueError, match="m=1"):
        judge_across([clear, weak], m=1)


def test_fewer_than_six_targets_are_described_and_not_tested() -> None:
    few, many = judge_across([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]])
    assert few.mean == few.iqm == 3.0
    assert all(map(isnan, (few.p, few.p_holm, *few.ci95, *few.iqm_ci95)))
    assert few.verdict == "inconclusive"
    assert many.p_holm == pytest.approx(2 * many.p), "the untested one still counts"


def test_equal_gains_give_no_false_certainty() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing, alike, ties = (
            across_targets(g) for g in ([0.0] * 7, [0.1] * 7, [0, 0, 0.1, 0.1, -0.1, 0.1, 0.1])
        )
    assert (nothing.p, nothing.direction) == (1.0, 0)
    assert all(map(isnan, (*alike.ci95, *alike.iqm_ci95)))
    assert alike.p == pytest.approx(2 / 2**7)
    assert 0 < ties.p <= 1


def test_the_bootstrap_has_a_generator_of_its_own() -> None:
    gains = np.random.default_rng(2).normal(size=12)
    np.random.seed(0)
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    first = iqm_interval(gains)
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]
    np.random.seed(1)
    assert iqm_interval(gains) == first
    assert iqm_interval(gains, seed=5) != first


def test_the_bootstrap_draws_targets() -> None:
    # Of two values each sample's middle is its mean: 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert iqm_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert iqm_interval([0.0, 1.0], level=0.6) == (0.0, 1.0)


def test_the_interval_narrows_with_the_root_of_the_targets() -> None:
    def width(K: int) -> float:
        low, high = iqm_interval(np.random.default_rng(K).normal(size=K))
        return high - low

    assert width(50) / width(800) == pytest.approx(4.0, rel=0.4)


@pytest.mark.parametrize("gains", [[], [[1.0]], [1.0, np.nan], [np.inf]])
def test_what_is_no_gain_is_refused(gains: list[float]) -> None:
    with pytest.raises(ValueError, match="Leave out"):
        across_targets(gains)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="resamples=0"):
        iqm_interval([1, 2], resamples=0)
    with pytest.raises(ValueError, match=r"alpha=0\.7"):
        judge_across([[1, 2]], alpha=0.7)
