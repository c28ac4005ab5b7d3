"""Whether transfer helped, hurt or made no difference that matters, at declared error rates.

Signs everywhere: delta is the score of transfer minus the score of training from scratch, higher
scores are better, and a delta below 0 is harm.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from transferlab.stats.crossed import Comparison, compare, half_width
from transferlab.stats.decision import PValues, Word, decide, holm, p_values
from transferlab.stats.power import SeedsNeeded, seeds_needed

Interval = tuple[float, float]

PLENTY = 5
"""Replicates from which on an interval is no longer flagged as resting on few."""


@dataclass(frozen=True)
class Verdict:
    """The judgement on one comparison, with what it rests on.

    Attributes:
        verdict: positive, equivalent, negative, inconclusive, or not_assessable.
        delta: mean gain of transfer over scratch, in the scores' unit; below 0 is harm.
        ci95: plain 95 % interval of ``delta``; NaN where undefined.
        ci_family: its interval at alpha / (family_size * looks), which agrees with the verdict.
        p_sign: Holm-adjusted p of a sign, over the declared family.
        p_equiv: Holm-adjusted p of equivalence.
        p_beyond: Holm-adjusted p of a difference larger than the margin.
        unadjusted: the three p values of this comparison alone.
        beyond_margin: whether the difference is shown to be larger than the margin.
        run_part: A, the variance of ``delta`` that more replicates remove.
        widened_run_part: A widened to the scope of the claim, which intervals and p values use; A
            itself for a claim about this pool.
        test_part: B, the variance of ``delta`` that only more test items remove.
        seeds_needed: replicates, test items or target data that would settle it.
        reason: why there is no ordinary verdict, one word; empty where there is.
        flags: warnings, one word each.
        n_pairs: replicates.
        n_items: test items, or clusters.
        margin: differences up to this size do not matter, in the scores' unit.
        alpha: error rate of the family over all looks.
        family_size: declared comparisons, the missing ones included.
        looks: planned looks at the data.
        rho: overlap of the replicates' target subsets, 0 for a claim about this pool.
    """

    verdict: Word
    delta: float
    ci95: Interval
    ci_family: Interval
    p_sign: float
    p_equiv: float
    p_beyond: float
    unadjusted: PValues
    beyond_margin: bool
    run_part: float
    widened_run_part: float
    test_part: float
    seeds_needed: SeedsNeeded
    reason: str
    flags: tuple[str, ...]
    n_pairs: int
    n_items: int
    margin: float
    alpha: float
    family_size: int
    looks: int
    rho: float


def transfer_verdict(
    transfer: ArrayLike,
    scratch: ArrayLike,
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> Verdict:
    """Judge one strategy against training from scratch, as a family of one.

    A wrong sign has probability at most alpha, each direction at most alpha / 2; ``equivalent``
    for a difference of at least the margin has at most alpha. The claim is about replicates drawn
    like these and test items drawn like these, both at once.

    Args:
        transfer: (n, M) bool or float scores, one row per replicate, higher is better.
        scratch: (n, M) scores of the same replicates on the same items, in the same order.
        margin: differences up to this size do not matter, above 0, in the scores' unit; the
            default is one percentage point of accuracy. Choose it before the runs.
        alpha: error rate in (0, 0.5).
        clusters: (M,) group id of each item, where several items share one patient or object.
        classes: (M,) true class of each item; makes the score the mean over classes.

    Returns:
        The verdict. One replicate, one item, runs that are copies of each other and identical
        predictions come back with a ``reason``, never with a certainty.

    Raises:
        ValueError: shapes disagree, a score is not finite, or margin or alpha is out of range.

    Source: sign test and two one-sided tests side by side, Schuirmann 1987 and Lakens 2017; the
    interval is described in `crossed`.
    """
    comparison = compare(transfer, scratch, clusters=clusters, classes=classes)
    return adjust([comparison], margin=margin, alpha=alpha)[0]


def adjust(
    comparisons: Sequence[Comparison],
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
    m: int | None = None,
    looks: int = 1,
) -> list[Verdict]:
    """Judge the comparisons of one family together, so that the error rate is the family's.

    Holm's procedure runs separately over the three questions. Members that are missing, or for
    which no p exists, still count in the family's size: leaving them out would reward failure.

    Args:
        comparisons: what is present, from `compare`.
        margin: differences up to this size do not matter, above 0, in the scores' unit.
        alpha: error rate of the family over all planned looks, in (0, 0.5).
        m: declared size of the family; by default the number present.
        looks: planned looks; each spends an equal share of alpha (Bonferroni).

    Returns:
        One verdict for each comparison, in the same order.

    Raises:
        ValueError: margin, alpha, m or looks is out of range.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    size = len(comparisons) if m is None else m
    _check(margin, alpha, size, looks)
    rule = _Rule(margin, alpha, size, looks)
    alone = [p_values(comparison, margin) for comparison in comparisons]
    table = np.array([astuple(p) for p in alone], dtype=np.float64).reshape(-1, 3)
    adjusted = np.column_stack([holm(column, size) for column in table.T])
    return [
        _verdict(comparison, own, PValues(*map(float, row)), rule)
        for comparison, own, row in zip(comparisons, alone, adjusted, strict=True)
    ]


def interval(comparison: Comparison, alpha: float) -> Interval:
    """Two-sided 1 - alpha interval of the difference; NaN where it is undefined."""
    c = comparison
    half = 0.0 if c.reason == "identical_predictions" else nan
    if not c.reason:
        half = half_width(c.widened_run_part, c.test_part, c.n_pairs, alpha)
    return c.delta - half, c.delta + half


@dataclass(frozen=True)
class _Rule:
    margin: float
    alpha: float
    size: int
    looks: int

    @property
    def level(self) -> float:
        """Error rate of one look, which adjusted p values are held against."""
        return self.alpha / self.looks

    @property
    def each(self) -> float:
        """Error rate of one comparison at one look if every member got the same share."""
        return self.level / self.size


def _verdict(comparison: Comparison, alone: PValues, adjusted: PValues, rule: _Rule) -> Verdict:
    c = comparison
    if c.reason == "identical_predictions":
        # No variance, so no p: what was seen leaves nothing to test. It takes no part in Holm's
        # ranking, where it would make the other members' bar lower.
        alone = adjusted = PValues(sign=1.0, equiv=0.0, beyond=1.0)
    word = decide(c, adjusted, rule.level)
    needed = seeds_needed(c, margin=rule.margin, alpha=rule.each)
    return Verdict(
        verdict=word,
        delta=c.delta,
        ci95=interval(c, 0.05),
        ci_family=interval(c, rule.each),
        p_sign=adjusted.sign,
        p_equiv=adjusted.equiv,
        p_beyond=adjusted.beyond,
        unadjusted=alone,
        beyond_margin=adjusted.beyond < rule.level,
        run_part=c.run_part,
        widened_run_part=c.widened_run_part,
        test_part=c.test_part,
        seeds_needed=needed,
        reason=c.reason,
        flags=(*c.flags, *_flags(c, word, adjusted, needed, rule)),
        n_pairs=c.n_pairs,
        n_items=c.n_items,
        margin=rule.margin,
        alpha=rule.alpha,
        family_size=rule.size,
        looks=rule.looks,
        rho=c.rho,
    )


def _flags(
    comparison: Comparison, word: Word, adjusted: PValues, needed: SeedsNeeded, rule: _Rule
) -> list[str]:
    """Warnings; a NaN compares false, so what is undefined raises none of its own."""
    floor = -float(ndtri(rule.alpha / 2)) * sqrt(comparison.test_part)
    undecided = word == "inconclusive"
    said = {
        "few_replicates": comparison.n_pairs < PLENTY,
        "margin_below_test_floor": rule.margin < floor,
        "margin_below_one_item": rule.margin * comparison.n_items < 1,
        "detectable_sign": word == "equivalent" and adjusted.sign < rule.level,
        "test_set_limits": undecided and needed.state == "more_test_items",
        "target_data_limits": undecided and needed.state == "more_target_data",
    }
    return [flag for flag, holds in said.items() if holds]


def _check(margin: float, alpha: float, size: int, looks: int) -> None:
    if not 0 < margin < inf:
        raise ValueError(
            f"margin={margin} is no size of difference. Use a number above 0 in the scores' unit, "
            "e.g. 0.01 for one percentage point of accuracy."
        )
    if not 0 < alpha < 0.5:
        raise ValueError(
            f"alpha={alpha} is no error rate. Use a number between 0 and 0.5, e.g. 0.05."
        )
    if size < 1 or looks < 1:
        raise ValueError(
            f"m={size} comparisons and looks={looks} were declared. Use 1 or more of each."
        )
