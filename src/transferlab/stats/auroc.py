"""The area under the ROC curve of two arms, compared over runs x test items.

An area is no mean over items, but each item has a placement value, the share of the other side's
items that it is ranked rightly against, whose means are the area. What an item's placement moves
the area by takes the part that a right or wrong answer has in the comparison of accuracies.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from transferlab.stats.anova import SAME, Codes, Floats, codes, moved
from transferlab.stats.crossed import Comparison, comparison_of


def compare_auroc(
    transfer: ArrayLike,
    scratch: ArrayLike,
    labels: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    rho: float = 0.0,
) -> Comparison:
    """Estimate the mean paired difference in AUROC and split its variance as `compare` does.

    With more than two classes it is the macro mean of one class against the rest. Class sizes
    count as given: the variance over test items is summed within classes, for two classes as in
    DeLong, DeLong and Clarke-Pearson 1988. Only the order of scores matters; ties count half.

    Args:
        transfer: (n, M) score of class 1 for two classes, or (n, M, C) scores of C classes; any
            increasing function of a probability, one row per replicate.
        scratch: scores of the same replicates on the same items, in the same shape.
        labels: (M,) true classes, integers from 0 to C - 1, each of them present.
        clusters: (M,) group id of each item, where several items share one patient or object.
        rho: share of the pool that a replicate's subset takes, for a claim about new target data.

    Returns:
        The estimate with its parts, in units of AUROC; ``reason`` is set where they are undefined,
        ``identical_predictions`` where both arms rank each item alike against the other classes.

    Raises:
        ValueError: shapes or labels don't fit, a class is absent, a score or id is not finite, or
            rho is below 0.
    """
    first, second = _scores("transfer", transfer), _scores("scratch", scratch)
    if first.shape != second.shape:
        raise ValueError(
            f"transfer has shape {first.shape} and scratch {second.shape}; they are paired by "
            "replicate and item. Keep the replicates both arms have, with one item order."
        )
    true = _labels(labels, first.shape[1:])
    groups = None if clusters is None else codes("clusters", clusters, len(true))
    difference = _shares(first, true) - _shares(second, true)
    sizes = np.bincount(true)
    means = np.stack([np.bincount(true, weights=row) / sizes for row in difference])
    # Every pair of items is counted from both its sides, so the shares hold each area twice.
    areas: Floats = means.sum(axis=1) / 2
    moves = (difference - means[:, true]) / sizes[true]
    strata = moved(areas, moves, groups, true)
    return comparison_of(strata, difference, groups, true, SAME, rho)


def auroc(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Return (n,) each replicate's AUROC, for several classes the macro mean of one against rest.

    Args:
        scores: (n, M) or (n, M, C), as in `compare_auroc`.
        labels: (M,) true classes.

    Returns:
        (n,) in [0, 1]; 0.5 for guesses.

    Raises:
        ValueError: as in `compare_auroc`.
    """
    table = _scores("scores", scores)
    true = _labels(labels, table.shape[1:])
    sizes = np.bincount(true)
    shares = _shares(table, true)
    areas: Floats = np.array([(np.bincount(true, weights=row) / sizes).sum() for row in shares]) / 2
    return areas


def _shares(scores: Floats, true: Codes) -> Floats:
    """(n, M) each item's part in its row's area, so that class means add up to twice the area.

    For C classes an item of class k is one of class k's positives, with its placement value among
    the rest, and a negative of every other class c, with its placement among c's positives; the
    latter weighs as much as class k does among c's negatives.
    """
    if scores.ndim == 2:
        return _placements(scores, true == 1)
    sizes = np.bincount(true)
    C, M = len(sizes), len(true)
    shares = np.zeros(scores.shape[:2])
    for kind in range(C):
        own = true == kind
        weights = np.where(own, 1.0, sizes[true] / (M - sizes[kind]))
        shares += weights * _placements(scores[:, :, kind], own)
    return shares / C


def _placements(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """(n, M) share of the other side that an item is ranked rightly against, ties as halves."""
    ranks = rankdata(scores, axis=1)
    own = np.empty_like(ranks)
    own[:, positive] = rankdata(scores[:, positive], axis=1)
    own[:, ~positive] = rankdata(scores[:, ~positive], axis=1)
    below = ranks - own  # items of the other side that lie below, ties as halves
    others = np.where(positive, (~positive).sum(), positive.sum())
    shares: Floats = np.where(positive, below, others - below) / others
    return shares


def _scores(name: str, values: ArrayLike) -> Floats:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no block of numbers ({error}). Pass floats of shape (replicates, items) "
            "for two classes or (replicates, items, classes)."
        ) from error
    if scores.ndim not in (2, 3) or scores.size == 0:
        raise ValueError(
            f"{name} has shape {scores.shape}, neither (replicates, items) nor (replicates, items, "
            "classes). A single run is `scores[None]`."
        )
    if not np.isfinite(scores).all():
        where = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"{name}[{', '.join(map(str, where))}] is {scores[tuple(where)]}. Drop replicate "
            f"{where[0]} from both arms if its run diverged; scores must be finite."
        )
    return scores


def _labels(labels: ArrayLike, shape: tuple[int, ...]) -> Codes:
    true: NDArray[Any] = np.asarray(labels)
    C = shape[1] if len(shape) == 2 else 2
    if true.shape != shape[:1] or true.dtype.kind not in "biu":
        raise ValueError(
            f"labels have shape {true.shape} and type {true.dtype} for {shape[0]} items. Pass one "
            "integer class per item."
        )
    present = np.unique(true.astype(np.intp))
    if C < 2 or not np.array_equal(present, np.arange(C)):
        raise ValueError(
            f"labels hold the classes {present.tolist()} for scores of {C}. An area needs items "
            f"of every class from 0 to {max(C, 2) - 1}; leave out scores of classes without items."
        )
    return true.astype(np.intp)
