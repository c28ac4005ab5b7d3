"""From one comparison to a word: three p values, Holm's adjustment, the rule that reads them."""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferlab.stats.crossed import Comparison, p_greater

Word = Literal["positive", "equivalent", "negative", "inconclusive", "not_assessable"]


@dataclass(frozen=True)
class PValues:
    """Three questions to one comparison, each with its p.

    Attributes:
        sign: two-sided, against a difference of zero.
        equiv: two one-sided tests, against a difference as large as the margin.
        beyond: one-sided in the direction seen, against a difference inside the margin.
    """

    sign: float
    equiv: float
    beyond: float


def p_values(comparison: Comparison, margin: float) -> PValues:
    """The three unadjusted p values of one comparison; NaN where it has no interval."""
    c = comparison
    if c.reason:
        return PValues(nan, nan, nan)

    size = abs(c.delta)
    return PValues(
        sign=p_of_sign(c), equiv=_above(c, margin - size), beyond=_above(c, size - margin)
    )


def p_of_sign(comparison: Comparison) -> float:
    """The first of :func:`p_values` alone."""
    if comparison.reason:
        return nan
    return min(1.0, 2 * _above(comparison, abs(comparison.delta)))


def _above(comparison: Comparison, shift: float) -> float:
    c = comparison
    return p_greater(shift, c.widened_run_part, c.test_part, c.n_pairs)


def holm(p_values: ArrayLike, m: int | None = None) -> NDArray[np.float64]:
    """Holm-adjusted p values of the members present in a family of declared size.

    Args:
        p_values: (K,) p values; NaN where a member is present but has none.
        m: declared size of the family, at least K; by default K.

    Returns:
        (K,) adjusted p values, at most 1, NaN where the input is.

    Raises:
        ValueError: m is smaller than K, or a p value lies outside [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    p = np.atleast_1d(np.asarray(p_values, dtype=np.float64))
    size = len(p) if m is None else m
    known = ~np.isnan(p)
    if size < len(p) or ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(
            f"holm got the p values {p.tolist()} and a family of m={size}. Declare at least as "
            "many members as are present, with p values from 0 to 1."
        )
    # By hand, because statsmodels counts NaN as members and collects garbage at every call, which
    # takes longer than the whole verdict.
    members = np.flatnonzero(known)
    ordered = members[np.argsort(p[members])]
    steps = np.maximum.accumulate(p[ordered] * (size - np.arange(len(ordered))))
    adjusted = np.full(len(p), nan)
    adjusted[ordered] = np.minimum(steps, 1.0)
    return adjusted


def decide(comparison: Comparison, p: PValues, level: float) -> Word:
    """The word for p values already adjusted for family and looks.

    Args:
        comparison: the estimate; its ``reason`` may forbid a verdict.
        p: adjusted p values.
        level: error rate of one look.

    Returns:
        The word. Equivalence comes first: a difference can be real and too small to matter.
    """
    if comparison.reason == "degenerate":
        return "not_assessable"
    if p.equiv < level:
        return "equivalent"
    if p.sign < level:
        return "negative" if comparison.delta < 0 else "positive"
    return "inconclusive"
