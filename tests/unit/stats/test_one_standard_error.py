"""The one-standard-error rule on scores made by hand."""

import numpy as np
import pytest

from transferlab.stats.metrics import accuracy, macro_recall
from transferlab.stats.one_standard_error import one_standard_error

LABELS = np.arange(100) % 4


def right(*counts: int, n: int = 100) -> np.ndarray:
    """Candidates that are right on the first so many items."""
    return np.stack([np.arange(n) < count for count in counts])


def test_the_standard_error_of_accuracy_is_the_binomial_one() -> None:
    rule = one_standard_error(right(80), LABELS)
    assert rule.scores.tolist() == [0.8]
    assert rule.se[0] == pytest.approx(np.sqrt(0.8 * 0.2 / 99))


@pytest.mark.parametrize(
    ("counts", "chosen", "best"),
    [
        ((50, 80, 81), 1, 2),  # one item apart, none the other way: 1 / n <= sqrt(1) / n
        ((50, 79, 81), 2, 2),  # two apart: 2 / n > sqrt(2) / n
        ((80, 80, 80), 0, 0),
        ((81, 80, 50), 0, 0),
        ((50, 81, 80, 81), 1, 1),  # of equals the simplest is the best
    ],
)
def test_the_simplest_within_one_standard_error_is_chosen(
    counts: tuple[int, ...], chosen: int, best: int
) -> None:
    rule = one_standard_error(right(*counts), LABELS)
    assert (rule.chosen, rule.best) == (chosen, best)
    behind = np.array([max(counts) - count for count in counts]) / 100
    assert rule.behind == pytest.approx(behind)
    spread = np.sqrt(behind * (1 - behind) / 99)  # of differences that are 0 or 1
    assert rule.se_behind == pytest.approx(spread)


def test_a_difference_that_goes_both_ways_is_less_sure() -> None:
    best, other = np.zeros(100, dtype=bool), np.zeros(100, dtype=bool)
    best[:53], other[3:53] = True, True
    assert one_standard_error([other, best], LABELS).chosen == 1  # 3 against 0
    best[:], other[:] = False, False
    best[:13], other[13:23] = True, True
    rule = one_standard_error([other, best], LABELS)  # 13 against 10, the same 0.03
    assert rule.behind[0] == pytest.approx(0.03)
    assert rule.chosen == 0
    difference = best.astype(float) - other
    assert rule.se_behind[0] == pytest.approx(difference.std(ddof=1) / 10)


def test_macro_recall_is_stratified_by_class() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    correct = np.concatenate([np.arange(90) < 81, np.arange(10) < 5])
    rule = one_standard_error([correct], labels, metric="macro_recall")
    predictions = np.where(correct, labels, 1 - labels)
    assert rule.scores[0] == macro_recall(predictions, labels) == pytest.approx(0.7)
    expected = np.sqrt(0.9 * 0.1 / 89 + 0.5 * 0.5 / 9) / 2
    assert rule.se[0] == pytest.approx(expected)
    plain = one_standard_error([correct], labels)
    assert plain.scores[0] == accuracy(predictions, labels) == pytest.approx(0.86)
    assert plain.se[0] < rule.se[0]


def test_standard_errors_agree_with_the_spread_over_samples() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0] * 160 + [1] * 40)
    rates = np.where(labels == 0, 0.9, 0.6)
    found = [
        one_standard_error([generator.random(200) < rates], labels, metric="macro_recall")
        for _ in range(2000)
    ]
    spread = np.std([rule.scores[0] for rule in found])
    assert np.mean([rule.se[0] for rule in found]) == pytest.approx(spread, rel=0.05)


def test_items_of_a_group_count_as_one_draw() -> None:
    single = right(14, n=20)
    alone = one_standard_error(single, LABELS[:20])
    tripled = one_standard_error(
        np.repeat(single, 3, axis=1), np.repeat(LABELS[:20], 3), groups=np.repeat(np.arange(20), 3)
    )
    assert tripled.se[0] == pytest.approx(alone.se[0])
    naive = one_standard_error(np.repeat(single, 3, axis=1), np.repeat(LABELS[:20], 3))
    assert naive.se[0] < alone.se[0]


def test_equal_scores_are_equal_in_whatever_order_they_are_summed() -> None:
    generator = np.random.default_rng(1)
    correct = np.stack([generator.permutation(right(70)[0]) for _ in range(50)])
    assert one_standard_error(correct, LABELS).best == 0
    assert set(one_standard_error(correct, LABELS).scores) == {0.7}


@pytest.mark.parametrize(
    ("correct", "labels", "metric"),
    [
        ([[True]], [0, 1], "accuracy"),
        ([True], [0], "accuracy"),
        (np.zeros((0, 3)), [0, 1, 2], "accuracy"),
        ([[True]], [0], "log_loss"),
    ],
)
def test_what_does_not_fit_is_refused(correct: object, labels: object, metric: str) -> None:
    with pytest.raises(ValueError, match=r"Pass|expected"):
        one_standard_error(correct, labels, metric=metric)  # type: ignore[arg-type]
