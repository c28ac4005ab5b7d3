import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from transferlab.stats.crossed import Comparison
from transferlab.stats.decision import PValues, decide, holm, p_values


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .04 times 3, 2, 1: .03, .04, .04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_equals_statsmodels() -> None:
    p = np.random.default_rng(0).random(9) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_missing_members_count_as_ones() -> None:
    p = np.array([0.001, 0.03, 0.01])
    padded = multipletests([*p, 1.0, 1.0], method="holm")[1][:3]
    assert holm(p, 5) == pytest.approx(padded)
    assert holm([0.02], 4) == pytest.approx([0.08])


def test_a_member_without_p_counts_but_is_not_ranked() -> None:
    adjusted = holm([np.nan, 0.01, 0.03])
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.03, 0.06])
    assert np.isnan(holm([np.nan, np.nan], 3)).all()


@pytest.mark.parametrize(("p", "m"), [([0.1, 0.2], 1), ([1.2], 1), ([-0.1, 0.5], 3)])
def test_holm_refuses_what_is_no_family(p: list[float], m: int) -> None:
    with pytest.raises(ValueError, match=rf"m={m}.*Declare"):
        holm(p, m)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.02, 0.3])
def test_p_values_are_the_t_tests_of_the_run_means(shift: float) -> None:
    runs = np.random.default_rng(4).normal(shift, 0.2, size=7)
    p = p_values(Comparison(float(runs.mean()), float(runs.var(ddof=1) / 7), 0.0, 7, 100), 0.1)
    reference = DescrStatsW(runs)
    beyond = reference.ttest_mean(0.1, "larger"), reference.ttest_mean(-0.1, "smaller")
    assert p.sign == pytest.approx(reference.ttest_mean(0.0)[1])
    assert p.equiv == pytest.approx(reference.ttost_mean(-0.1, 0.1)[0])
    assert p.beyond == pytest.approx(min(test[1] for test in beyond))


@pytest.mark.parametrize(
    ("delta", "p", "word"),
    [
        (0.3, PValues(0.01, 0.9, 0.02), "positive"),
        (-0.3, PValues(0.01, 0.9, 0.02), "negative"),
        (-0.001, PValues(0.01, 0.01, 0.9), "equivalent"),
        (0.0, PValues(0.8, 0.01, 0.9), "equivalent"),
        (0.3, PValues(0.05, 0.9, 0.3), "inconclusive"),
        (0.001, PValues(0.9, 0.05, 0.9), "inconclusive"),
        (0.0, PValues(np.nan, np.nan, np.nan), "inconclusive"),
    ],
)
def test_the_grid_of_words(delta: float, p: PValues, word: str) -> None:
    assert decide(Comparison(delta, 0.1, 0.1, 5, 100), p, 0.05) == word
