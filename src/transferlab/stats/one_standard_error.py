"""The one-standard-error rule: the simplest of the candidates that are as good as the best.

Sources: Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3;
Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2nd ed., section 7.10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ROUNDING = 1e-12
"""Scores that differ by less are equal."""


@dataclass(frozen=True)
class OneStandardError:
    """What the rule made of K candidates, simplest first.

    Attributes:
        chosen: number of the candidate that is chosen.
        best: number of the one with the best score, the simplest of equals.
        scores: (K,) scores.
        se: (K,) standard error of each score.
        behind: (K,) how far each score lies behind the best, 0 or more.
        se_behind: (K,) standard error of that difference, from the same items.
    """

    chosen: int
    best: int
    scores: Floats
    se: Floats
    behind: Floats
    se_behind: Floats


def one_standard_error(
    correct: ArrayLike,
    labels: ArrayLike,
    *,
    metric: str = "accuracy",
    groups: Sequence[Any] | NDArray[Any] | None = None,
) -> OneStandardError:
    """Choose the first candidate whose score is within one standard error of the best score.

    The books take the standard error of the best score, as if candidates were scored on items of
    their own. These share their items, and how hard an item is for all says nothing about which
    candidate is better, so the standard error is that of the paired difference to the best.

    Args:
        correct: (K, n) whether candidate k was right on item i; candidates in the order of
            preference, simplest first.
        labels: (n,) true classes.
        metric: ``accuracy``, or ``macro_recall``, whose classes are strata.
        groups: (n,) what items belong together (a patient); each then counts as one draw.

    Raises:
        ValueError: shapes that do not fit, no candidate, no item, or another metric.
    """
    outcomes, true = np.asarray(correct, dtype=np.float64), np.asarray(labels)
    if outcomes.ndim != 2 or outcomes.shape[1:] != true.shape or 0 in outcomes.shape:
        raise ValueError(
            f"correct has shape {outcomes.shape} and labels {true.shape}. Pass (candidates, items) "
            "and (items,), at least one of each."
        )
    strata = _strata(true, metric)
    members = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    scores = np.array([_means(row, strata).mean() for row in outcomes])
    best = int((scores >= scores.max() - ROUNDING).argmax())  # the first of equals
    apart = outcomes[best] - outcomes
    se = np.array([_standard_error(row, strata, members) for row in outcomes])
    se_behind = np.array([_standard_error(row, strata, members) for row in apart])
    behind = np.maximum(scores[best] - scores, 0.0)
    within = behind <= se_behind + ROUNDING
    return OneStandardError(int(within.argmax()), best, scores, se, behind, se_behind)


def _strata(labels: NDArray[Any], metric: str) -> NDArray[np.intp]:
    """Return (n,) numbers of the strata: the score is the mean of their means."""
    if metric == "accuracy":
        return np.zeros(len(labels), dtype=np.intp)
    if metric == "macro_recall":
        return np.unique(labels, return_inverse=True)[1]
    raise ValueError(f"metric={metric!r}: expected accuracy or macro_recall.")


def _means(values: Floats, strata: NDArray[np.intp]) -> Floats:
    means: Floats = np.bincount(strata, weights=values) / np.bincount(strata)
    return means


def _standard_error(
    values: Floats, strata: NDArray[np.intp], members: NDArray[np.intp] | None
) -> float:
    """Return the standard error of the mean of the strata's means.

    By items: sum over strata of s² / n scaled by the squared weight, with n - 1 in s². By groups:
    the sums of the groups' residuals squared, times G / (G - 1). A single draw shows no spread.
    """
    sizes = np.bincount(strata)
    weights = 1 / (len(sizes) * sizes[strata])
    residuals = weights * (values - _means(values, strata)[strata])
    if members is None:
        corrections = sizes / np.maximum(sizes - 1, 1)
        return float(np.sqrt((corrections[strata] * residuals**2).sum()))
    sums = np.bincount(members, weights=residuals)
    return float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum()))
