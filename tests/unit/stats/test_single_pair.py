import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from transferlab.stats.single_pair import mcnemar_p


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 80)) < np.array([[0.8], [0.7]])
    table = [[int(((first == a) & (second == b)).sum()) for b in (1, 0)] for a in (1, 0)]
    assert mcnemar_p(first, second) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_p(first, second) == mcnemar_p(second, first)


def test_by_hand() -> None:
    # Five items for one model alone, none for the other: 2 / 2^5.
    assert mcnemar_p([1] * 5 + [1, 0], [0] * 5 + [1, 0]) == pytest.approx(1 / 16)


def test_models_that_never_disagree_show_nothing() -> None:
    assert mcnemar_p([True, False, True], [True, False, True]) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([[1, 0]], [[1, 0]], "runs must not be pooled"),
        ([1, 0], [1], r"\(2,\) and \(1,\)"),
        ([], [], "one answer per item"),
        ([0.3, 0.7], [0.1, 0.2], "Pass booleans"),
    ],
)
def test_wrong_inputs_are_named(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mcnemar_p(first, second)
