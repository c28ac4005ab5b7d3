"""The gain of transfer within each class: a mean gain may hide classes that it harms."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from transferlab.stats.anova import Floats, codes, names
from transferlab.stats.crossed import Comparison, compare
from transferlab.stats.decision import holm, p_of_sign
from transferlab.stats.verdict import Interval, interval

LEAST = 30
"""Test items, or clusters of them, from which on a class has an interval and p values."""


@dataclass(frozen=True)
class ClassGain:
    """What transfer did to one class.

    Attributes:
        label: the class, as it was passed.
        n_items: its test items, or clusters of them.
        gained: answers, over items and replicates, that transfer scored higher than scratch did.
        lost: answers that it scored lower.
        delta: mean gain on the class, below 0 is harm; NaN for a class of few items.
        ci95: plain 95 % interval of ``delta``; NaN where undefined.
        p_sign: plain two-sided p; NaN where undefined.
        p_fdr: the same adjusted after Benjamini and Hochberg, for exploring.
        p_holm: the same adjusted after Holm, for a claim.
        reason: why there is no p: ``few_items`` or one of `Comparison`'s; empty where there is.
    """

    label: str
    n_items: int
    gained: int
    lost: int
    delta: float
    ci95: Interval
    p_sign: float
    p_fdr: float
    p_holm: float
    reason: str


@dataclass(frozen=True)
class ClassGains:
    """The gains of all classes, and which of them hold.

    Attributes:
        classes: one entry a class, sorted by label.
        harmed: classes with a loss at false discovery rate q: on average at most a share q of
            the classes named harmed or helped is not.
        helped: classes with a gain at that rate.
        surely_harmed: classes with a loss at family-wise rate alpha (Holm).
        surely_helped: classes with a gain at that rate.
        n_tested: classes with enough items, over which both adjustments run.
        q: false discovery rate.
        alpha: family-wise error rate.
    """

    classes: tuple[ClassGain, ...]
    harmed: tuple[str, ...]
    helped: tuple[str, ...]
    surely_harmed: tuple[str, ...]
    surely_helped: tuple[str, ...]
    n_tested: int
    q: float
    alpha: float

    @property
    def summary(self) -> str:
        """How many classes transfer harms, as ``2 of 10 classes harmed``."""
        untested = len(self.classes) - self.n_tested
        few = f" ({untested} with too few items to tell)" if untested else ""
        return f"{len(self.harmed)} of {len(self.classes)} classes harmed{few}"


def gains_by_class(
    transfer: ArrayLike,
    scratch: ArrayLike,
    classes: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    rho: float = 0.0,
    q: float = 0.1,
    alpha: float = 0.05,
) -> ClassGains:
    """Compare two arms within each class, with the interval of `compare` on the class's items.

    Classes of fewer than 30 items have counts and no p; which they are depends on the test set
    alone, so leaving them out of the adjustments favours nobody. A class whose p is undefined
    for another reason counts in both.

    Args:
        transfer: (n, M) bool or float scores, one row per replicate, higher is better.
        scratch: (n, M) scores of the same replicates on the same items.
        classes: (M,) class of each item, or any other label that parts the items.
        clusters: (M,) group id of each item, where several items share one patient or object.
        rho: as in `compare`.
        q: false discovery rate of the exploratory list, in (0, 1).
        alpha: family-wise error rate of the confirmatory list, in (0, 1).

    Returns:
        The classes' gains and the lists.

    Raises:
        ValueError: shapes disagree, an item has no class, or a score or a rate is out of range.

    Source: Benjamini and Hochberg, JRSS B 1995; Holm, Scandinavian Journal of Statistics 1979.
    """
    for name, rate in (("q", q), ("alpha", alpha)):
        if not 0 < rate < 1:
            raise ValueError(f"{name}={rate} is no error rate. Use a number between 0 and 1.")
    compare(transfer, scratch, clusters=clusters, rho=rho)  # what can be wrong, said of the whole
    first, second = (np.asarray(side, dtype=np.float64) for side in (transfer, scratch))
    kinds, labels = codes("classes", classes, first.shape[1]), names(classes)
    groups = None if clusters is None else np.asarray(clusters)
    gains = []
    for kind, label in enumerate(labels):
        own = kinds == kind
        within = None if groups is None else groups[own]
        found = compare(first[:, own], second[:, own], clusters=within, rho=rho)
        gains.append(_gain(label, first[:, own] - second[:, own], found))
    adjusted = _adjusted(gains)
    lists = (_listed(adjusted, level, by) for by, level in (("p_fdr", q), ("p_holm", alpha)))
    (harmed, helped), (surely_harmed, surely_helped) = lists
    n_tested = sum(gain.reason != "few_items" for gain in adjusted)
    return ClassGains(
        tuple(adjusted), harmed, helped, surely_harmed, surely_helped, n_tested, q, alpha
    )


def _gain(label: str, difference: Floats, found: Comparison) -> ClassGain:
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    if found.n_items < LEAST:
        none = (nan, nan)
        return ClassGain(
            label, found.n_items, gained, lost, nan, none, nan, nan, nan, reason="few_items"
        )
    p = 1.0 if found.reason == "identical_predictions" else p_of_sign(found)
    return ClassGain(
        label,
        found.n_items,
        gained,
        lost,
        found.delta,
        interval(found, 0.05),
        p_sign=p,
        p_fdr=nan,
        p_holm=nan,
        reason=found.reason,
    )


def _adjusted(gains: Sequence[ClassGain]) -> list[ClassGain]:
    """The gains with both adjusted p values, over the classes that have enough items."""
    members = [gain for gain in gains if gain.reason != "few_items"]
    if not members:
        return list(gains)
    plain = np.array([gain.p_sign for gain in members])
    known = ~np.isnan(plain)
    discovery: NDArray[np.float64] = false_discovery_control(np.where(known, plain, 1.0))
    discovery = np.where(known, discovery, nan)
    rows = iter(zip(discovery, holm(plain), strict=True))

    def adjusted(gain: ClassGain) -> ClassGain:
        first, second = next(rows)
        return replace(gain, p_fdr=float(first), p_holm=float(second))

    return [gain if gain.reason == "few_items" else adjusted(gain) for gain in gains]


def _listed(
    gains: Sequence[ClassGain], level: float, by: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels of the classes that lose and that gain, by an adjusted p."""
    shown = [gain for gain in gains if getattr(gain, by) <= level]
    return (
        tuple(gain.label for gain in shown if gain.delta < 0),
        tuple(gain.label for gain in shown if gain.delta > 0),
    )
