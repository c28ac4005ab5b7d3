"""Scores of predictions, per item and in the mean, and the rule for a run that learned nothing."""

from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
LOWER_IS_BETTER = ("log_loss", "brier")
"""Scores that are losses; verdicts take them negated."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; all NaN where it is undefined.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of items whose predicted class is the true one.

    Args:
        predictions: (M,) predicted classes.
        labels: (M,) true classes.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: the two differ in shape, or there are no items.
    """
    predicted, true = _pair(predictions, labels)
    return float((predicted == true).mean())


def macro_recall(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the classes present in ``labels`` of the share of their items recognised.

    Args:
        predictions: (M,) predicted classes.
        labels: (M,) true classes.

    Returns:
        A share in [0, 1]; also called balanced accuracy.

    Raises:
        ValueError: the two differ in shape, or there are no items.
    """
    predicted, true = _pair(predictions, labels)
    codes = np.unique(true, return_inverse=True)[1]
    recalls = np.bincount(codes, weights=predicted == true) / np.bincount(codes)
    return float(recalls.mean())


def item_log_loss(log_probs: ArrayLike, labels: ArrayLike) -> Floats:
    """Negative log probability of each item's true class.

    Args:
        log_probs: (M, C) log probabilities, rows normalised.
        labels: (M,) true classes in [0, C).

    Returns:
        (M,) losses in nats, 0 at best, infinite where the true class was given no chance. Pass
        them negated to `transfer_verdict`, whose scores are better when higher.

    Raises:
        ValueError: shapes, labels or probabilities are not as above.
    """
    table, true = _table(log_probs, labels)
    return -table[np.arange(len(true)), true]


def log_loss(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `item_log_loss`, in nats per item."""
    return float(item_log_loss(log_probs, labels).mean())


def item_brier(log_probs: ArrayLike, labels: ArrayLike) -> Floats:
    """Squared distance of each item's class probabilities from its one-hot true class.

    Args:
        log_probs: (M, C) log probabilities, rows normalised.
        labels: (M,) true classes in [0, C).

    Returns:
        (M,) scores in [0, 2], 0 at best; Brier's own definition, summed over all classes, which
        for two classes is twice the one-sided form.

    Raises:
        ValueError: shapes, labels or probabilities are not as above.

    Source: Brier, Monthly Weather Review 1950.
    """
    table, true = _table(log_probs, labels)
    distance = np.exp(table)
    distance[np.arange(len(true)), true] -= 1.0
    scores: Floats = (distance**2).sum(axis=1)
    return scores


def brier(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `item_brier`, in [0, 2]."""
    return float(item_brier(log_probs, labels).mean())


def relative_error_reduction(
    transfer_errors: ArrayLike, scratch_errors: ArrayLike, *, alpha: float = 0.05
) -> Estimate:
    """Share of scratch's errors that transfer removes, paired by replicate.

    The ratio is averaged on the log scale, where a halving and a doubling weigh the same, and its
    Student-t interval is carried back. It describes these test items; it has no test part.

    Args:
        transfer_errors: (n,) error rates in [0, 1], one per replicate.
        scratch_errors: (n,) error rates of the same replicates.
        alpha: 1 minus the interval's level.

    Returns:
        1 - e_T / e_S, below 1, negative where transfer adds errors. All NaN where an arm made no
        error in some replicate; only the interval is NaN with one replicate.

    Raises:
        ValueError: the two differ in shape, are empty, or hold something that is no error rate.
    """
    first = np.asarray(transfer_errors, dtype=np.float64)
    second = np.asarray(scratch_errors, dtype=np.float64)
    both = np.concatenate([first.ravel(), second.ravel()])
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"relative_error_reduction got shapes {first.shape} and {second.shape}. Pass one "
            "error rate per replicate and arm, paired."
        )
    if not ((both >= 0) & (both <= 1)).all():
        raise ValueError(f"Error rates lie in [0, 1], got {both.tolist()}. Pass 1 - accuracy.")
    if (both == 0).any():
        return Estimate(nan, nan, nan)
    logs = np.log(first / second)
    n, centre = len(logs), float(logs.mean())
    half = nan
    if n > 1:
        half = -float(stdtrit(n - 1, alpha / 2)) * float(logs.std(ddof=1)) / sqrt(n)
    low, high = 1 - np.exp(centre + half), 1 - np.exp(centre - half)
    return Estimate(float(1 - np.exp(centre)), float(low), float(high))


def at_chance(
    train_accuracy: float, n: int, *, n_classes: int | None = None, majority: float | None = None
) -> bool:
    """Whether a finished run fits its own training set no better than guessing would.

    Such a run diverged or never learned, and counts as a failure instead of a low score. The bar
    is chance plus two standard errors of a guesser's accuracy.

    Args:
        train_accuracy: final accuracy on the training items, in [0, 1]; NaN counts as diverged.
        n: training items.
        n_classes: classes; chance is then 1 / n_classes.
        majority: share of the largest class, which is what a constant guess scores; use it where
            classes are unequal.

    Returns:
        True where the run is no better than chance. A perfect fit never is, though on very few
        items the bar lies above 1.

    Raises:
        ValueError: n is not positive, or not exactly one of n_classes and majority was given.

    """
    if n < 1 or (n_classes is None) == (majority is None):
        raise ValueError(
            f"at_chance got n={n}, n_classes={n_classes} and majority={majority}. Pass n >= 1 and "
            "one of the other two."
        )
    chance = 1 / n_classes if n_classes is not None else majority
    if chance is None or not 0 < chance <= 1:
        raise ValueError(
            f"A guess can't score {chance}. Pass a share in (0, 1], or n_classes >= 1."
        )
    if train_accuracy != train_accuracy:
        return True
    return train_accuracy < 1 and train_accuracy <= chance + 2 * sqrt(chance * (1 - chance) / n)


def _pair(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != true.shape or true.ndim != 1 or true.size == 0:
        raise ValueError(
            f"predictions have shape {predicted.shape} and labels {true.shape}. Pass one class per "
            "item each; take the argmax of scores first."
        )
    return predicted, true


def _table(log_probs: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    table, true = np.asarray(log_probs, dtype=np.float64), np.asarray(labels)
    if table.ndim != 2 or true.shape != table.shape[:1] or true.size == 0:
        raise ValueError(
            f"log_probs have shape {table.shape} and labels {true.shape}. Pass (items, classes) "
            "and (items,)."
        )
    if true.dtype.kind not in "iu" or true.min() < 0 or true.max() >= table.shape[1]:
        raise ValueError(
            f"labels run from {true.min()} to {true.max()} ({true.dtype}) for {table.shape[1]} "
            "classes. Pass integers from 0 to the number of classes less one."
        )
    sums = np.exp(table).sum(axis=1)
    if not np.allclose(sums, 1.0, atol=1e-3):
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise ValueError(
            f"exp(log_probs[{worst}]) sums to {sums[worst]:g}, not 1. Pass log_softmax(logits)."
        )
    return table, true.astype(np.int64)
