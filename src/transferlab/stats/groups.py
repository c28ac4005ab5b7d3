"""Groups of test items: whom an arm serves worst, and what transfer does to the gap between them.

Groups are labels that are no class, such as a hospital, a camera or a skin tone, or their
crossings. What a source was biased in can persist on a clean target (Salman et al.,
arXiv:2207.02842).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from transferlab.stats.anova import SAME, Floats, codes, names
from transferlab.stats.per_class import LEAST, ClassGains, gains_by_class
from transferlab.stats.verdict import Interval

BETWEEN = " x "


@dataclass(frozen=True)
class GroupScores:
    """One arm's accuracy in each group.

    Attributes:
        groups: names, sorted.
        counts: test items of each group.
        accuracies: mean over replicates and items of each group, small groups included.
        counted: whether a group has enough items to enter ``worst`` and ``gap``.
        worst: the counted group with the lowest accuracy, the first of equals; empty where no
            group counts.
        worst_accuracy: its accuracy; NaN where no group counts.
        gap: highest less lowest accuracy of the counted groups; NaN where fewer than two count.
    """

    groups: tuple[str, ...]
    counts: tuple[int, ...]
    accuracies: tuple[float, ...]
    counted: tuple[bool, ...]
    worst: str
    worst_accuracy: float
    gap: float


@dataclass(frozen=True)
class GapChange:
    """How much wider the gap between groups is with transfer than from scratch.

    Attributes:
        delta: mean over replicates of the gap with transfer less that from scratch, above 0 where
            transfer widens it.
        ci95: its 95 % t interval over replicates. It is conditional on this test set: that other
            items would show other gaps is not in it. NaN where undefined.
        p: its two-sided p, with the same condition.
        per_replicate: (n,) the differences.
        reason: why there is no interval: ``too_few_groups``, ``single_replicate`` or
            ``degenerate`` (every replicate gave the same difference); empty where there is.
    """

    delta: float
    ci95: Interval
    p: float
    per_replicate: tuple[float, ...]
    reason: str


def partitions(
    columns: Mapping[str, ArrayLike], *, depth: int | None = None
) -> dict[str, NDArray[np.str_]]:
    """Every way to part the items by the columns alone and crossed with each other.

    Args:
        columns: (M,) group label of each item, by the column's name.
        depth: how many columns are crossed at most; by default all.

    Returns:
        (M,) labels by name: ``sex`` and ``age``, then ``sex x age`` with labels such as
        ``f x old``.

    Raises:
        ValueError: there is no column, an item has no label, the columns differ in length, or
            depth is below 1.
    """
    deepest = len(columns) if depth is None else depth
    if not columns or deepest < 1:
        raise ValueError(
            f"partitions got the columns {list(columns)} and depth={depth}. Pass at least one "
            "column of group labels, and a depth of 1 or more."
        )
    M = len(np.asarray(next(iter(columns.values()))))
    texts = {}
    for name, labels in columns.items():
        numbers = codes(f"column {name!r}", labels, M)
        texts[name] = np.array(names(labels))[numbers]
    parted = {}
    for size in range(1, min(deepest, len(columns)) + 1):
        for chosen in combinations(columns, size):
            rows = zip(*(texts[name] for name in chosen), strict=True)
            parted[BETWEEN.join(chosen)] = np.array([BETWEEN.join(row) for row in rows])
    return parted


def accuracy_by_group(correct: ArrayLike, groups: ArrayLike, *, least: int = LEAST) -> GroupScores:
    """One arm's accuracy in each group, the worst of them and the gap.

    A gap between the largest and the smallest of several noisy numbers is above 0 even where all
    groups are alike; it is to be read beside that of another arm on the same items.

    Args:
        correct: (n, M) bool or float scores, one row per replicate, higher is better.
        groups: (M,) group of each item.
        least: items from which on a group enters the worst and the gap.

    Returns:
        Accuracies, counts, the worst group and the gap.

    Raises:
        ValueError: shapes disagree, an item has no group, or a score is not finite.
    """
    table, labels, counts = _by_group(correct, groups)
    means = table.mean(axis=0)
    counted = counts >= least
    worst, lowest, gap = "", nan, nan
    if counted.any():
        number = int(np.flatnonzero(counted)[means[counted].argmin()])
        worst, lowest = labels[number], float(means[number])
    if counted.sum() > 1:
        gap = float(np.ptp(means[counted]))
    return GroupScores(
        tuple(labels),
        tuple(map(int, counts)),
        tuple(map(float, means)),
        tuple(map(bool, counted)),
        worst,
        lowest,
        gap,
    )


def gap_change(
    transfer: ArrayLike, scratch: ArrayLike, groups: ArrayLike, *, least: int = LEAST
) -> GapChange:
    """The gap that transfer adds, paired by replicate, given this test set.

    Args:
        transfer: (n, M) bool or float scores, one row per replicate, higher is better.
        scratch: (n, M) scores of the same replicates on the same items.
        groups: (M,) group of each item.
        least: items from which on a group counts.

    Returns:
        The mean difference of the two gaps with its interval over replicates.

    Raises:
        ValueError: shapes disagree, an item has no group, or a score is not finite.
    """
    first, _, counts = _by_group(transfer, groups)
    second, _, _ = _by_group(scratch, groups)
    if first.shape != second.shape:
        raise ValueError(
            f"transfer has {len(first)} replicates and scratch {len(second)}; they are paired. "
            "Keep the replicates both arms have."
        )
    counted = counts >= least
    if counted.sum() < 2:
        return GapChange(nan, (nan, nan), nan, (), "too_few_groups")
    gaps = [np.ptp(table[:, counted], axis=1) for table in (first, second)]
    changes: Floats = gaps[0] - gaps[1]
    n, delta, rows = len(changes), float(changes.mean()), tuple(map(float, changes))
    if n == 1 or np.ptp(changes) <= SAME * float(np.abs(gaps).max()):
        reason = "single_replicate" if n == 1 else "degenerate"
        return GapChange(delta, (nan, nan), nan, rows, reason)
    error = float(changes.std(ddof=1)) / sqrt(n)
    half = -float(stdtrit(n - 1, 0.025)) * error
    p = 2 * float(stdtr(n - 1, -abs(delta) / error))
    return GapChange(delta, (delta - half, delta + half), p, rows, "")


def gains_by_group(
    transfer: ArrayLike,
    scratch: ArrayLike,
    groups: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    rho: float = 0.0,
    q: float = 0.1,
    alpha: float = 0.05,
) -> ClassGains:
    """The gain of transfer within each group, as `gains_by_class` has it for classes."""
    return gains_by_class(transfer, scratch, groups, clusters=clusters, rho=rho, q=q, alpha=alpha)


def _by_group(correct: ArrayLike, groups: ArrayLike) -> tuple[Floats, list[str], NDArray[np.intp]]:
    """(n, G) accuracies, the G names, and (G,) counts."""
    scores = np.asarray(correct, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(
            f"correct has shape {scores.shape}, or holds a score that is not finite. Pass finite "
            "scores of shape (replicates, items); a single run is `correct[None, :]`."
        )
    numbers = codes("groups", groups, scores.shape[1])
    counts = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, weights=row) for row in scores])
    return sums / counts, names(groups), counts
