"""Two-way analysis of variance of runs x items, over strata of items that are averaged.

A stratum is a matrix (n, J) of what n runs scored on J items; the row means of all strata average
to the runs' estimates. What is no mean over items becomes such a matrix through what each item
moves it by: `moved`.
"""

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

SAME = 1e-12  # differences this small, relative to the scores, are rounding


def codes(name: str, values: ArrayLike, M: int) -> Codes:
    """(M,) ids as 0..K-1.

    Raises:
        ValueError: not one id for each of M items, or an item has none.
    """
    ids: NDArray[Any] = np.asarray(values)
    if ids.shape != (M,):
        raise ValueError(f"{name} has shape {ids.shape}, not ({M},). Pass one id per test item.")
    if ids.dtype.kind in "fO" and any(each is None or each != each for each in ids.tolist()):
        raise ValueError(f"{name} has items without an id. Give every item one, or leave it out.")
    return np.unique(_sortable(ids), return_inverse=True)[1].astype(np.intp)


def names(values: ArrayLike) -> list[str]:
    """The distinct ids as text, in the order of the numbers that `codes` gives them."""
    return [str(each) for each in np.unique(_sortable(np.asarray(values)))]


def _sortable(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids as text where they are of mixed types, which have no order of their own."""
    return ids.astype(str) if ids.dtype == object else ids


def strata_of(difference: Floats, groups: Codes | None, labels: Codes | None) -> Sequence[Floats]:
    """Matrices (n, J) of item scores whose row means average to the runs' estimates."""
    M = difference.shape[1]
    kinds = np.zeros(M, np.intp) if labels is None else labels
    if groups is None:
        return [difference[:, kinds == kind] for kind in range(kinds.max() + 1)]
    if labels is None or cross(groups, labels):
        return [_cluster_scores(difference, groups, kinds)]
    return [
        _cluster_scores(difference[:, own], groups[own], np.zeros(own.sum(), np.intp))
        for own in (kinds == kind for kind in range(kinds.max() + 1))
    ]


def moved(
    estimates: Floats, moves: Floats, groups: Codes | None, labels: Codes | None
) -> Sequence[Floats]:
    """Strata of an estimate that is no plain mean, from what each item moves it by.

    Each run's estimate plus what a unit, an item or a cluster of them, moves it by, times the
    number of units and of strata: the variance of the strata's averaged means is then the sum of
    the moves' own. Strata are the classes, or all items at once where a cluster spans classes.

    Args:
        estimates: (n,) each run's estimate.
        moves: (n, M) first-order change of the estimate by each item, summing to 0 in a class.
        groups: (M,) clusters, or None where every item is its own.
        labels: (M,) classes, or None for one stratum.

    Returns:
        As many (n, J) matrices as there are strata, each with the estimates as row means.
    """
    M = moves.shape[1]
    units = np.arange(M) if groups is None else groups
    whole = labels is None or (groups is not None and cross(groups, labels))
    kinds = np.zeros(M, np.intp) if labels is None or whole else labels
    count = int(kinds.max()) + 1
    return [
        estimates[:, None] + count * _summed(moves[:, own], units[own])
        for own in (kinds == kind for kind in range(count))
    ]


def cross(groups: Codes, labels: Codes) -> bool:
    """Whether a cluster has items of more than one class."""
    return len(_cells(groups, labels)) > len(np.unique(groups))


def _cluster_scores(difference: Floats, groups: Codes, labels: Codes) -> Floats:
    """Each run's estimate plus what each cluster moves it by, times the number of clusters.

    Subtracting the run's own class mean first is what makes unequal cluster sizes harmless: a
    constant difference then has no variance, however the images are spread.
    """
    sizes = np.bincount(labels)
    means = np.stack([np.bincount(labels, weights=row) / sizes for row in difference])
    moves = (difference - means[:, labels]) / (len(sizes) * sizes[labels])
    return moved(means.mean(axis=1), moves, groups, None)[0]


def _summed(moves: Floats, units: Codes) -> Floats:
    """(n, J) moves summed within each unit, times the number of units J."""
    numbers = np.unique(units, return_inverse=True)[1]
    J = int(numbers.max()) + 1
    if moves.shape[1] == J:
        return J * moves
    totals: Floats = np.stack([np.bincount(numbers, weights=row, minlength=J) for row in moves])
    return J * totals


def _cells(groups: Codes, labels: Codes) -> Codes:
    """(K, 2) distinct pairs of cluster and class."""
    return np.unique(np.stack([groups, labels], axis=1), axis=0)


def undefined(
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
    kinds = np.zeros(M, np.intp) if labels is None else labels
    if np.bincount(kinds if groups is None else _cells(groups, kinds)[:, 1]).min() < 2:
        return "single_item"
    if np.abs(difference).max() <= rounding:
        return "identical_predictions"
    scale = max(float(np.abs(stratum).max()) for stratum in strata)
    alike = max(rounding, SAME * scale)
    same = all(float(np.ptp(stratum, axis=0).max()) <= alike for stratum in strata)
    return "degenerate" if same else ""


def analyse(
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
