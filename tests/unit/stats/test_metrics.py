import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from transferlab.stats.metrics import (
    accuracy,
    at_chance,
    brier,
    item_brier,
    item_log_loss,
    log_loss,
    macro_recall,
    relative_error_reduction,
)

LABELS = np.array([0, 0, 0, 1, 2, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 0, 2])


def predictions(M: int = 50, C: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(M, C))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), rng.integers(0, C, size=M)


def test_accuracy_and_macro_recall_by_hand() -> None:
    assert accuracy(PREDICTIONS, LABELS) == pytest.approx(4 / 6)
    assert macro_recall(PREDICTIONS, LABELS) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert macro_recall(PREDICTIONS, LABELS) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(LABELS, PREDICTIONS)
    )


def test_log_loss_and_brier_equal_scikit_learn() -> None:
    log_probs, labels = predictions()
    probabilities = np.exp(log_probs)
    assert log_loss(log_probs, labels) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities)
    )
    one_hot = np.eye(4)[labels]
    assert brier(log_probs, labels) == pytest.approx(((probabilities - one_hot) ** 2).sum() / 50)


def test_an_uninformed_prediction_has_closed_form_scores() -> None:
    uniform = np.full((3, 5), -math.log(5))
    assert item_log_loss(uniform, [0, 4, 2]) == pytest.approx([math.log(5)] * 3)
    assert item_brier(uniform, [0, 4, 2]) == pytest.approx([0.8] * 3)  # 1 - 1/C


def test_the_ends_of_the_scales() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(2))
    assert (log_loss(certain, [0, 1]), brier(certain, [0, 1])) == (0.0, 0.0)
    assert (log_loss(certain, [1, 0]), brier(certain, [1, 0])) == (math.inf, 2.0)


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (np.log([[0.5, 0.5]]), [2], "0 to the number of classes"),
        (np.log([[0.5, 0.5]]), [0.0], "Pass integers"),
        ([[0.5, 0.5]], [0], "log_softmax"),
        (np.log([[0.5, 0.5]]), [0, 1], r"shape \(1, 2\) and labels \(2,\)"),
        ([[np.nan, 0.0]], [0], "log_softmax"),
    ],
)
def test_bad_probabilities_are_refused(log_probs: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_loss(log_probs, labels)


def test_predictions_and_labels_must_pair() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and labels \(3,\)"):
        accuracy([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="argmax"):
        macro_recall([], [])


def test_relative_error_reduction_is_the_paired_t_on_logs() -> None:
    transfer, scratch = np.array([0.10, 0.12, 0.08]), np.array([0.20, 0.20, 0.20])
    found = relative_error_reduction(transfer, scratch)
    low, high = stats.ttest_1samp(np.log(transfer / scratch), 0).confidence_interval(0.95)
    assert found.value == pytest.approx(1 - stats.gmean(transfer / scratch))
    assert (found.low, found.high) == pytest.approx((1 - math.exp(high), 1 - math.exp(low)))


def test_relative_error_reduction_that_is_undefined_is_nan() -> None:
    alone = relative_error_reduction([0.1], [0.2])
    assert alone.value == pytest.approx(0.5)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    assert math.isnan(relative_error_reduction([0.0, 0.1], [0.1, 0.1]).value)


@pytest.mark.parametrize(
    ("transfer", "scratch", "message"),
    [([0.1], [0.1, 0.2], "shapes"), ([98.0], [97.0], "Pass 1 - accuracy"), ([], [], "shapes")],
)
def test_relative_error_reduction_refuses(
    transfer: list[float], scratch: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        relative_error_reduction(transfer, scratch)


def test_at_chance_is_chance_plus_two_standard_errors() -> None:
    bar = 0.1 + 2 * math.sqrt(0.1 * 0.9 / 400)
    assert at_chance(bar - 1e-9, 400, n_classes=10)
    assert not at_chance(bar + 1e-9, 400, n_classes=10)
    assert at_chance(0.7, 400, majority=0.7)
    assert not at_chance(0.7, 400, n_classes=2)


def test_at_chance_at_its_ends() -> None:
    assert at_chance(math.nan, 400, n_classes=10)
    assert not at_chance(1.0, 2, n_classes=2)
    for wrong in ({"n_classes": 3, "majority": 0.4}, {}):
        with pytest.raises(ValueError, match="one of the other two"):
            at_chance(0.3, 10, **wrong)
    with pytest.raises(ValueError, match=r"1\.4"):
        at_chance(0.3, 10, majority=1.4)
