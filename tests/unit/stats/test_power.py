import numpy as np
import pytest
from scipy import stats

from transferlab.stats.crossed import Comparison, half_width
from transferlab.stats.power import seeds_needed, smallest_difference, typical_item_variance

# Smallest difference in units of the sd over replicates, power 80 %, two-sided .05 / m.
TABLE = {
    3: (3.26, 5.67, 6.55, 9.26, 12.7),
    5: (1.68, 2.29, 2.48, 2.98, 3.51),
    8: (1.16, 1.45, 1.53, 1.74, 1.93),
    10: (1.00, 1.22, 1.28, 1.43, 1.58),
    20: (0.66, 0.78, 0.81, 0.89, 0.95),
}


@pytest.mark.parametrize("n", TABLE)
def test_smallest_difference_of_the_paired_t_test(n: int) -> None:
    found = [
        smallest_difference(n, 100, run_sd=1.0, item_variance=0.0, m=m) for m in (1, 3, 4, 8, 15)
    ]
    assert found == pytest.approx(TABLE[n], abs=0.006, rel=0.003)


def test_smallest_difference_has_the_power_of_the_noncentral_t() -> None:
    size = smallest_difference(6, 100, run_sd=0.02, item_variance=0.0, alpha=0.01, power=0.9)
    critical, shift = stats.t.isf(0.005, 5), size / 0.02 * 6**0.5
    assert stats.nct.sf(critical, 5, shift) == pytest.approx(0.9, abs=1e-4)


def test_smallest_difference_with_a_test_part_has_its_power_in_simulation() -> None:
    n, M, run_sd, variance = 4, 400, 0.02, 0.08
    size = smallest_difference(n, M, run_sd=run_sd, item_variance=variance)
    rng = np.random.default_rng(0)
    runs = rng.normal(0, run_sd, size=(20000, n))
    estimate = size + runs.mean(axis=1) + rng.normal(0, (variance / M) ** 0.5, size=20000)
    widths = [half_width(A / n, variance / M, n, 0.05) for A in runs.var(axis=1, ddof=1)]
    assert np.mean(np.abs(estimate) > widths) == pytest.approx(0.8, abs=0.01)


def test_a_test_set_limits_what_any_number_of_seeds_can_show() -> None:
    few = smallest_difference(10, 150, run_sd=0.01, item_variance=0.1)
    endless = smallest_difference(10**6, 150, run_sd=0.01, item_variance=0.1)
    normal = (stats.norm.isf(0.025) + stats.norm.isf(0.2)) * (0.1 / 150) ** 0.5
    assert endless == pytest.approx(normal, rel=1e-3)
    assert few > endless
    assert smallest_difference(10, 15000, run_sd=0.01, item_variance=0.1) < 0.4 * few


@pytest.mark.parametrize(
    "change",
    [{"n": 1}, {"M": 0}, {"run_sd": -1.0}, {"item_variance": -0.1}, {"power": 0.01}, {"m": 0}],
)
def test_a_plan_out_of_range_is_refused(change: dict[str, float]) -> None:
    plan = {"n": 5, "M": 100, "run_sd": 0.01, "item_variance": 0.1} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        smallest_difference(**plan)


def test_typical_item_variance() -> None:
    assert typical_item_variance(0.8, persistence=1.0) == pytest.approx(0.16)
    assert typical_item_variance(discordance=0.3, persistence=0.5) == pytest.approx(0.15)
    with pytest.raises(ValueError, match=r"discordance=1\.3"):
        typical_item_variance(discordance=1.3)


def test_seed_counts_are_the_first_that_suffice() -> None:
    comparison = Comparison(0.02, 0.03**2 / 5, 1e-5, 5, 1000)
    needed = seeds_needed(comparison, margin=0.03, alpha=0.05)

    def width(n: int, alpha: float) -> float:
        return half_width(0.03**2 / n, 1e-5, n, alpha)

    assert needed.sign is not None
    assert width(needed.sign, 0.05) < 0.02 <= width(needed.sign - 1, 0.05)
    assert needed.equiv is not None
    assert width(needed.equiv, 0.1) < 0.01 <= width(needed.equiv - 1, 0.1)
    assert needed.guarantee is not None
    assert width(needed.guarantee, 0.05) < 0.015 <= width(needed.guarantee - 1, 0.05)
    assert needed.next == min(needed.sign, needed.equiv)
    assert needed.state == "more_seeds"
    assert needed.floor_half_width == pytest.approx(1.959964 * 1e-5**0.5)


def test_a_stricter_rate_takes_more_seeds() -> None:
    comparison = Comparison(0.02, 0.03**2 / 5, 0.0, 5, 1000)
    alone = seeds_needed(comparison, margin=0.01, alpha=0.05).sign
    family = seeds_needed(comparison, margin=0.01, alpha=0.05 / 12).sign
    assert alone is not None
    assert family is not None
    assert family > alone


def test_more_seeds_cannot_help_where_the_test_set_is_too_small() -> None:
    comparison = Comparison(0.02, 1e-6, 0.02**2, 5, 150)
    needed = seeds_needed(comparison, margin=0.01, alpha=0.05)
    assert (needed.sign, needed.equiv, needed.next, needed.guarantee) == (None,) * 4
    assert needed.state == "more_test_items"
    # Only the sign is in question: 2 * 150 * z^2 * B / delta^2 with B = delta^2.
    assert needed.test_items_needed == int(np.ceil(300 * stats.norm.isf(0.025) ** 2))


def test_overlapping_subsets_leave_a_part_that_no_seeds_remove() -> None:
    """s = .03 and rho = 1/4: s^2 (1/n + 1/3) falls to .0003, whose normal half-width is .034."""
    narrow = Comparison(0.05, 0.03**2 / 5, 1e-5, 5, 1000, rho=0.25)
    needed = seeds_needed(narrow, margin=0.01, alpha=0.05)
    floor = (0.03**2 / 3 + 1e-5) ** 0.5
    assert needed.floor_half_width == pytest.approx(stats.norm.isf(0.025) * floor)
    assert needed.state == "more_seeds"

    def width(n: int) -> float:
        return half_width(0.03**2 * (1 / n + 1 / 3), 1e-5, n, 0.05)

    assert needed.sign is not None
    assert width(needed.sign) < 0.05 <= width(needed.sign - 1)
    plain = seeds_needed(Comparison(0.05, 0.03**2 / 5, 1e-5, 5, 1000), margin=0.01, alpha=0.05)
    assert plain.sign is not None
    assert plain.sign < needed.sign


def test_more_target_data_is_the_answer_where_the_pool_is_too_small() -> None:
    blocked = Comparison(0.03, 0.03**2 / 5, 1e-5, 5, 1000, rho=0.25)
    needed = seeds_needed(blocked, margin=0.01, alpha=0.05)
    assert (needed.sign, needed.equiv, needed.next, needed.guarantee) == (None,) * 4
    assert needed.state == "more_target_data"
    assert needed.test_items_needed is None


def test_more_test_items_is_the_answer_where_they_and_the_overlap_share_the_blame() -> None:
    both = Comparison(0.04, 0.03**2 / 5, 3e-4, 5, 1000, rho=0.25)
    needed = seeds_needed(both, margin=0.01, alpha=0.05)
    assert needed.state == "more_test_items"
    square = stats.norm.isf(0.025) ** 2
    expected = 2 * 1000 * square * 3e-4 / (0.04**2 - square * 0.0003)
    assert needed.test_items_needed == int(np.ceil(expected))
    # With that many, the floor is below the difference, so some number of seeds settles it.
    items = needed.test_items_needed
    more = Comparison(0.04, 0.03**2 / 5, 3e-4 * 1000 / items, 5, items, rho=0.25)
    assert seeds_needed(more, margin=0.01, alpha=0.05).state == "more_seeds"


def test_a_scope_that_is_not_estimable_needs_target_data() -> None:
    whole = Comparison(0.3, 1e-6, 1e-6, 5, 500, "scope_not_estimable", rho=1.0)
    needed = seeds_needed(whole, margin=0.01, alpha=0.05)
    assert (needed.state, needed.next, needed.guarantee) == ("more_target_data", None, None)
    assert np.isnan(needed.floor_half_width)


def test_equivalence_is_the_easier_goal_near_zero() -> None:
    needed = seeds_needed(Comparison(0.0, 1e-5, 1e-3, 5, 150), margin=0.01, alpha=0.05)
    assert needed.sign is None
    assert needed.test_items_needed == int(np.ceil(300 * stats.norm.isf(0.05) ** 2 * 10))


def test_enough_and_unknown() -> None:
    clear = seeds_needed(Comparison(0.3, 1e-4, 1e-4, 5, 500), margin=0.01, alpha=0.05)
    assert clear.state == "enough"
    blind = Comparison(0.3, np.nan, np.nan, 1, 500, "single_replicate")
    assert seeds_needed(blind, margin=0.01, alpha=0.05).state == "unknown"


def test_a_target_just_above_the_floor_ends() -> None:
    floor = stats.norm.isf(0.025) * 0.01
    comparison = Comparison(floor * (1 + 1e-13), 1e-2, 1e-4, 5, 500)
    assert seeds_needed(comparison, margin=1e-9, alpha=0.05).sign is None
