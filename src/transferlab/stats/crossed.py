"""A paired difference over runs x test items: its estimate, two variance parts, interval and p.

Runs and items are crossed: every replicate is scored on the same test items. The variance of the
mean difference therefore has a part that more replicates shrink and a part that only more test
items shrink, and an interval that sees one of them alone is too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, isnan, log, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

SAME = 1e-12  # differences this small, relative to the scores, are rounding
SMALLEST_P = 1e-300


@dataclass(frozen=True)
class Comparison:
    """What two arms' scores say before any error rate is chosen.

    Attributes:
        delta: mean score of transfer minus that of scratch, in the scores' unit; below 0 is harm.
        run_part: A, the variance of ``delta`` that more replicates remove; NaN where undefined.
        test_part: B, the variance of ``delta`` that only more test items remove; NaN likewise.
        n_pairs: replicates n.
        n_items: test items, or clusters of them where these are the items.
        reason: why no interval exists: ``single_replicate``, ``single_item``, ``degenerate`` or
            ``identical_predictions``; empty where one does.
        flags: what a reader should know about the estimate.
    """

    delta: float
    run_part: float
    test_part: float
    n_pairs: int
    n_items: int
    reason: str = ""
    flags: tuple[str, ...] = ()


def compare(
    transfer: ArrayLike,
    scratch: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> Comparison:
    """Estimate the mean paired difference and split its variance between runs and test items.

    The split is the two-way random-effects analysis of variance without replication: with run
    means r, item means c and grand mean g, A = var(r)/n and B is the item mean square less the
    interaction mean square, over nM, never below zero.

    ``clusters`` makes groups of items (the images of one patient) the unit B is computed over.
    The estimate stays the mean over images, so a cluster weighs as much as it has images; it is
    then a ratio of two cluster totals and B uses its linearised residuals.

    ``classes`` turns the estimate into the macro-average: the mean over classes of each class's
    own difference. B is then the sum of the classes' B over the squared number of classes. With
    both, a cluster may span classes; its contributions to the classes are then added up before
    its variance is taken.

    Args:
        transfer: (n, M) bool or float scores, one row per replicate, higher is better.
        scratch: (n, M) scores of the same replicates on the same items, in the same order.
        clusters: (M,) group id of each item.
        classes: (M,) true class of each item.

    Returns:
        The estimate with its parts; ``reason`` is set where they are undefined.

    Raises:
        ValueError: shapes disagree, nothing was passed, or a score or id is not finite.
    """
    difference, rounding = _difference(transfer, scratch)
    n, M = difference.shape
    groups, labels = _codes("clusters", clusters, M), _codes("classes", classes, M)
    strata = _strata(difference, groups, labels)
    n_items = M if groups is None else int(groups.max()) + 1
    reason = _undefined(difference, strata, groups, labels, rounding)
    delta, run_part, test_part, flags = _analyse(strata, reason, rounding)
    return Comparison(delta, run_part, test_part, n, n_items, reason, flags)


def half_width(run_part: float, test_part: float, n: float, alpha: float) -> float:
    """Half the width of the two-sided 1 - alpha interval for a mean over runs and items.

    Each variance part is weighted by its own squared quantile, Student's t with n - 1 degrees of
    freedom for the few runs and the normal one for the many items, after Banerjee (Sankhya 1960).

    Args:
        run_part: A, variance of the mean due to runs.
        test_part: B, variance of the mean due to test items.
        n: replicates, 2 or more.
        alpha: two-sided error rate in (0, 1).

    Returns:
        The half-width, in the unit of the mean; NaN where a part is.
    """
    t, z = -float(stdtrit(n - 1, alpha / 2)), -float(ndtri(alpha / 2))
    return hypot(t * sqrt(run_part), z * sqrt(test_part))


def p_greater(shift: float, run_part: float, test_part: float, n: int) -> float:
    """One-sided p against "the true value is at most 0" for an estimate ``shift``.

    It is the rate at which the one-sided bound of `half_width`'s interval touches zero, so
    intervals and p values always agree.

    Args:
        shift: the estimate, in any unit.
        run_part: A in that unit squared.
        test_part: B in that unit squared.
        n: replicates, 2 or more.

    Returns:
        p in [1e-300, 1); NaN where a part is.
    """
    if isnan(run_part) or isnan(test_part):
        return nan
    if shift <= 0:
        return 0.5 if shift == 0 else 1.0 - p_greater(-shift, run_part, test_part, n)
    # t is the wider of the two quantiles, so p lies between the pure normal and the pure t one.
    ratio = shift / sqrt(run_part + test_part)
    high = log(max(float(stdtr(n - 1, -ratio)), SMALLEST_P))
    low = max(float(log_ndtr(-ratio)), log(SMALLEST_P))
    if high - low < 1e-9:
        return exp(high)

    def excess(log_p: float) -> float:
        return half_width(run_part, test_part, n, 2 * exp(log_p)) - shift

    if excess(low) <= 0:
        return exp(low)
    return exp(high) if excess(high) >= 0 else exp(brentq(excess, low, high, xtol=1e-12))


def _difference(transfer: ArrayLike, scratch: ArrayLike) -> tuple[Floats, float]:
    """Transfer minus scratch, and the size below which a difference of the two is rounding."""
    first, second = _scores("transfer", transfer), _scores("scratch", scratch)
    if first.shape != second.shape:
        raise ValueError(
            f"transfer has shape {first.shape} and scratch {second.shape}; they are paired by "
            "replicate and item. Keep the replicates both arms have, with one item order."
        )
    largest = max(np.abs(first).max(), np.abs(second).max())
    return first - second, SAME * float(largest)


def _scores(name: str, values: ArrayLike) -> Floats:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no rectangle of numbers ({error}). Pass booleans or floats of shape "
            "(replicates, items), one row per replicate."
        ) from error
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(
            f"{name} has shape {scores.shape}, not (replicates, items). Pass one row per "
            "replicate; a single run is `scores[None, :]`."
        )
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"{name}[{row}, {column}] is {scores[row, column]}. Drop replicate {row} from both "
            "arms if its run diverged, and report it as a failure; scores must be finite."
        )
    return scores


def _codes(name: str, values: ArrayLike | None, M: int) -> Codes | None:
    """Ids as 0..K-1."""
    if values is None:
        return None
    ids: NDArray[Any] = np.asarray(values)
    if ids.shape != (M,):
        raise ValueError(f"{name} has shape {ids.shape}, not ({M},). Pass one id per test item.")
    if ids.dtype.kind in "fO" and any(each is None or each != each for each in ids.tolist()):
        raise ValueError(f"{name} has items without an id. Give every item one, or leave it out.")
    # Through str for mixed types, which have no order of their own.
    ids = ids.astype(str) if ids.dtype == object else ids
    return np.unique(ids, return_inverse=True)[1].astype(np.intp)


def _strata(difference: Floats, groups: Codes | None, labels: Codes | None) -> Sequence[Floats]:
    """Matrices (n, J) of item scores whose row means average to the runs' estimates."""
    M = difference.shape[1]
    if groups is None:
        kinds = np.zeros(M, np.intp) if labels is None else labels
        return [difference[:, kinds == kind] for kind in range(kinds.max() + 1)]
    if labels is None:
        return [_cluster_scores(difference, groups, np.zeros(M, np.intp))]
    if len(_cells(groups, labels)) > groups.max() + 1:
        return [_cluster_scores(difference, groups, labels)]
    within = [labels == kind for kind in range(labels.max() + 1)]
    return [
        _cluster_scores(
            difference[:, mask],
            np.unique(groups[mask], return_inverse=True)[1].astype(np.intp),
            np.zeros(mask.sum(), np.intp),
        )
        for mask in within
    ]


def _cluster_scores(difference: Floats, groups: Codes, labels: Codes) -> Floats:
    """Each run's estimate plus what each cluster moves it by, times the number of clusters.

    Subtracting the run's own class mean first is what makes unequal cluster sizes harmless: a
    constant difference then has no variance, however the images are spread.
    """
    J = int(groups.max()) + 1
    sizes = np.bincount(labels)
    means = np.stack([np.bincount(labels, weights=row) / sizes for row in difference])
    moves = (difference - means[:, labels]) / (len(sizes) * sizes[labels])
    summed = np.stack([np.bincount(groups, weights=row, minlength=J) for row in moves])
    scores: Floats = means.mean(axis=1)[:, None] + J * summed
    return scores


def _cells(groups: Codes, labels: Codes) -> Codes:
    """(K, 2) distinct pairs of cluster and class."""
    return np.unique(np.stack([groups, labels], axis=1), axis=0)


def _undefined(
    difference: Floats,
    strata: Sequence[Floats],
    groups: Codes | None,
    labels: Codes | None,
    rounding: float,
) -> str:
    """Name why no interval can be computed; empty where it can."""
    n, M = difference.shape
    if n == 1:
        return "single_replicate"
    units = np.arange(M) if groups is None else groups
    kinds = np.zeros(M, np.intp) if labels is None else labels
    if np.bincount(_cells(units, kinds)[:, 1]).min() < 2:
        return "single_item"
    if np.abs(difference).max() <= rounding:
        return "identical_predictions"
    scale = max(float(np.abs(stratum).max()) for stratum in strata)
    alike = max(rounding, SAME * scale)
    same = all(float(np.ptp(stratum, axis=0).max()) <= alike for stratum in strata)
    return "degenerate" if same else ""


def _analyse(
    strata: Sequence[Floats], reason: str, rounding: float
) -> tuple[float, float, float, tuple[str, ...]]:
    """Estimate, A, B and flags."""
    means = np.array([stratum.mean(axis=1) for stratum in strata])  # (strata, n)
    runs: Floats = means.mean(axis=0)
    delta, n = float(runs.mean()), len(runs)
    if reason:
        part = 0.0 if reason == "identical_predictions" else nan
        return delta, part, part, ()
    parts = np.array([_item_parts(stratum) for stratum in strata])
    test_part, interaction = parts.sum(axis=0) / len(strata) ** 2
    if np.ptp(runs) > rounding:
        return delta, float(runs.var(ddof=1)) / n, float(test_part), ()
    # Counts that tie by chance would claim a run variance of zero. What run-by-item noise, or
    # classes that cancelled, add to it is known and is the least it can be.
    opposed = means.var(axis=1, ddof=1).sum() / n / len(strata) ** 2
    return delta, float(max(interaction, opposed)), float(test_part), ("equal_run_means",)


def _item_parts(scores: Floats) -> tuple[float, float]:
    """B of one stratum, and the variance of its mean that comes from run-by-item noise."""
    n, M = scores.shape
    rows, columns = scores.mean(axis=1, keepdims=True), scores.mean(axis=0)
    grand = scores.mean()
    items = n * float(((columns - grand) ** 2).sum()) / (M - 1)
    rest = float(((scores - rows - columns + grand) ** 2).sum()) / ((n - 1) * (M - 1))
    return max(items - rest, 0.0) / (n * M), rest / (n * M)
