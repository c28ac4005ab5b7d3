"""A paired difference over runs x test items: its estimate, two variance parts, interval and p.

Runs and items are crossed: every replicate is scored on the same test items. The variance of the
mean difference therefore has a part that more replicates shrink and a part that only more test
items shrink, and an interval that sees one of them alone is too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, isnan, log, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri, stdtr, stdtrit

from transferlab.stats.anova import SAME, Codes, Floats, analyse, codes, strata_of, undefined

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
        reason: why no interval exists: ``single_replicate``, ``single_item``, ``degenerate``,
            ``identical_predictions`` or ``scope_not_estimable``; empty where one does.
        flags: what a reader should know about the estimate.
        rho: how much the replicates' training sets overlap, as the share m / P of the pool that
            one subset takes, where the claim is about new target data; 0 where it is about this
            pool, or where every replicate drew fresh data.
    """

    delta: float
    run_part: float
    test_part: float
    n_pairs: int
    n_items: int
    reason: str = ""
    flags: tuple[str, ...] = ()
    rho: float = 0.0

    @property
    def target_part(self) -> float:
        """Variance that only more target data removes: s^2 rho / (1 - rho), s^2 = n A.

        NaN from rho = 1 on, where no amount of it shows in the replicates.
        """
        if self.rho >= 1:
            return nan
        return self.n_pairs * self.run_part * self.rho / (1 - self.rho)

    @property
    def widened_run_part(self) -> float:
        """A widened to the claim's scope, s^2 (1 / n + rho / (1 - rho)); A itself at rho = 0.

        Source: Nadeau and Bengio, Machine Learning 2003, whose overlapping training sets are
        those of cross-validation.
        """
        return self.run_part + self.target_part


def compare(
    transfer: ArrayLike,
    scratch: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    rho: float = 0.0,
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

    ``rho`` widens the claim from replicates drawn from this pool of target data to new target
    data: subsets of one pool share images, so replicates vary less than new data would. A subset
    that is the whole pool shows nothing of that, which is the reason ``scope_not_estimable``.

    Args:
        transfer: (n, M) bool or float scores, one row per replicate, higher is better.
        scratch: (n, M) scores of the same replicates on the same items, in the same order.
        clusters: (M,) group id of each item.
        classes: (M,) true class of each item.
        rho: share m / P of the pool that a replicate's subset takes, 0 for a claim about the pool.

    Returns:
        The estimate with its parts; ``reason`` is set where they are undefined.

    Raises:
        ValueError: shapes disagree, nothing was passed, a score or id is not finite, or rho is
            below 0.
    """
    difference, rounding = _difference(transfer, scratch)
    M = difference.shape[1]
    groups = None if clusters is None else codes("clusters", clusters, M)
    labels = None if classes is None else codes("classes", classes, M)
    strata = strata_of(difference, groups, labels)
    return comparison_of(strata, difference, groups, labels, rounding, rho)


def comparison_of(
    strata: Sequence[Floats],
    difference: Floats,
    groups: Codes | None,
    labels: Codes | None,
    rounding: float,
    rho: float,
) -> Comparison:
    """The comparison that strata of item scores come to, with why it has no interval.

    Args:
        strata: (n, J) matrices whose row means average to the runs' estimates.
        difference: (n, M) what tells the arms apart, item by item; all 0 where nothing does.
        groups: (M,) clusters as 0..K-1, or None.
        labels: (M,) classes as 0..C-1, or None.
        rounding: size below which a difference is rounding.
        rho: as in `compare`.

    Raises:
        ValueError: rho is below 0 or NaN.
    """
    if not rho >= 0:
        raise ValueError(
            f"rho={rho} is no share of the pool. Pass subset size over pool size for a claim about "
            "new target data, or 0 for one about this pool."
        )
    n, M = difference.shape
    n_items = M if groups is None else int(groups.max()) + 1
    reason = undefined(difference, strata, groups, labels, rounding)
    delta, run_part, test_part, flags = analyse(strata, reason, rounding)
    if rho >= 1 and reason in ("", "identical_predictions"):
        reason = "scope_not_estimable"
    return Comparison(delta, run_part, test_part, n, n_items, reason, flags, rho)


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
