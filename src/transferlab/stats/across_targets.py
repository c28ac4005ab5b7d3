"""What many targets say together about one way to transfer: one gain a target, tested over targets.

The targets are the sample here: an interval or a p is about targets drawn like these, and a target
weighs the same however many seeds its own gain rests on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from scipy.stats import wilcoxon

from transferlab.stats.decision import Word, holm

Floats = NDArray[np.float64]
Interval = tuple[float, float]

FEWEST = 6
"""Targets from which on they are tested; five can't reach p < 0.05 in a signed-rank test."""

RESAMPLES = 10_000
SEED = 20_240_601
TRIM = 0.25
DIGITS = 12  # gains closer than this tie, as they would without rounding errors


@dataclass(frozen=True)
class AcrossTargets:
    """One way to transfer, over all its targets; NaN where it is undefined or not tested.

    Attributes:
        n_targets: targets with a gain.
        mean: mean gain, in the scores' unit; below 0 is harm.
        ci95: Student's t interval of the mean over targets.
        iqm: mean gain of the middle half of the targets.
        iqm_ci95: percentile interval of ``iqm`` from a bootstrap over targets.
        worse: targets whose gain is below 0.
        better: targets whose gain is above 0.
        p: two-sided p of Wilcoxon's signed-rank test.
        p_holm: the same after Holm over the declared family.
        smallest_p: the least p that so many targets can reach.
        direction: 1 where the higher ranks lie above 0, -1 where they lie below, else 0.
        verdict: positive, negative or inconclusive, from ``p_holm`` and the direction.
    """

    n_targets: int
    mean: float
    ci95: Interval
    iqm: float
    iqm_ci95: Interval
    worse: int
    better: int
    p: float
    p_holm: float
    smallest_p: float
    direction: int
    verdict: Word


def judge_across(
    gains: Sequence[ArrayLike], *, alpha: float = 0.05, m: int | None = None
) -> list[AcrossTargets]:
    """Judge the members of one family over targets together, by Wilcoxon's test and Holm.

    Args:
        gains: for each member, (K,) one gain a target, in the scores' unit; K may differ.
        alpha: error rate of the family, in (0, 0.5).
        m: declared size of the family, at least the number of members; by default that number.

    Returns:
        One judgement a member, in order. A member with fewer than 6 targets has no interval and no
        p, and still counts in the family.

    Raises:
        ValueError: alpha or m is out of range, or a member has no gain or one that isn't finite.

    Source: Demšar, JMLR 2006 (tests over data sets); Agarwal et al., NeurIPS 2021 (the
    interquartile mean).
    """
    if not 0 < alpha < 0.5:
        raise ValueError(
            f"alpha={alpha} is no error rate. Use a number between 0 and 0.5, e.g. 0.05."
        )
    alone = [across_targets(values) for values in gains]
    if not alone:
        return []
    adjusted = [float(p) for p in holm([each.p for each in alone], m)]
    return [
        replace(each, p_holm=p, verdict=_word(each, p, alpha))
        for each, p in zip(alone, adjusted, strict=True)
    ]


def across_targets(
    gains: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> AcrossTargets:
    """Describe one member's gains over targets, and test them where there are 6 or more.

    Args:
        gains: (K,) one gain a target, in the scores' unit.
        resamples: bootstrap samples of the targets, 1 or more.
        seed: of the generator that draws them; the global one is never touched.

    Returns:
        The description; ``p_holm`` equals ``p``, and the verdict is inconclusive until a family
        and its level are given to `judge_across`.

    Raises:
        ValueError: no gain, one that isn't finite, or no resamples.
    """
    values = _gains(gains)
    K = len(values)
    tested = K >= FEWEST
    p, direction = _signed_rank(values) if tested else (nan, 0)
    return AcrossTargets(
        n_targets=K,
        mean=float(values.mean()),
        ci95=t_interval(values) if tested else (nan, nan),
        iqm=interquartile_mean(values),
        iqm_ci95=iqm_interval(values, resamples=resamples, seed=seed) if tested else (nan, nan),
        worse=int((values < 0).sum()),
        better=int((values > 0).sum()),
        p=p,
        p_holm=p,
        smallest_p=2.0 ** (1 - K) if tested else nan,
        direction=direction,
        verdict="inconclusive",
    )


def interquartile_mean(gains: ArrayLike) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is cut off at either end.

    Args:
        gains: (K,) values, K at least 1.

    Returns:
        The mean of the K - 2 floor(K / 4) middle values.

    Raises:
        ValueError: no value, or one that isn't finite.
    """
    return float(_middle(_gains(gains)[None])[0])


def iqm_interval(
    gains: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Percentile interval of the interquartile mean from a bootstrap over targets.

    Args:
        gains: (K,) one gain a target; whole targets are drawn, with replacement.
        level: share of the bootstrap's values that the interval holds, in (0, 1).
        resamples: how many samples of K targets are drawn, 1 or more.
        seed: of this call's own generator, so equal input gives equal output.

    Returns:
        Its ends; NaN for a single target, or where all gains are equal: the zero width that a
        bootstrap gives then would be a false certainty.

    Raises:
        ValueError: no gain, one that isn't finite, or no resamples.
    """
    values = _gains(gains)
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples={resamples} and level={level} make no interval. Use 1 or more, e.g. "
            f"{RESAMPLES}, and a share such as 0.95."
        )
    if _alike(values):
        return nan, nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    ends = np.quantile(_middle(values[drawn]), [(1 - level) / 2, (1 + level) / 2])
    return float(ends[0]), float(ends[1])


def t_interval(gains: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean; NaN for a single value, or where all are equal.

    Args:
        gains: (K,) values.
        level: two-sided coverage, in (0, 1).

    Raises:
        ValueError: no value, or one that isn't finite.
    """
    values = _gains(gains)
    K = len(values)
    if _alike(values):
        return nan, nan
    mean = float(values.mean())
    half = -float(stdtrit(K - 1, (1 - level) / 2)) * float(values.std(ddof=1)) / sqrt(K)
    return mean - half, mean + half


def _gains(values: ArrayLike) -> Floats:
    gains = np.asarray(values, dtype=np.float64)
    if gains.ndim != 1 or len(gains) == 0 or not np.isfinite(gains).all():
        raise ValueError(
            f"gains over targets are one finite number a target, got {gains.tolist()}. Leave out "
            "targets without a gain, and say which."
        )
    return gains


def _alike(values: Floats) -> bool:
    return float(np.ptp(values)) <= 10.0**-DIGITS * max(float(np.abs(values).max()), 1e-300)


def _middle(samples: Floats) -> Floats:
    """(R,) interquartile mean of every row of (R, K)."""
    K = samples.shape[1]
    cut = int(TRIM * K)
    middle: Floats = np.sort(samples, axis=1)[:, cut : K - cut].mean(axis=1)
    return middle


def _signed_rank(values: Floats) -> tuple[float, int]:
    """Two-sided p, and the side on which the ranks are heavier; zeros count for both."""
    rounded = np.round(values / max(float(np.abs(values).max()), 1e-300), DIGITS)
    if not rounded.any():
        return 1.0, 0
    found = wilcoxon(rounded, zero_method="zsplit", alternative="two-sided")
    greater = wilcoxon(rounded, zero_method="zsplit", alternative="greater")
    half = len(values) * (len(values) + 1) / 4
    return min(1.0, float(found.pvalue)), int(np.sign(float(greater.statistic) - half))


def _word(found: AcrossTargets, p: float, alpha: float) -> Word:
    """A sign only where the ranks and the mean agree on it; a NaN p compares false."""
    if not p < alpha or found.direction * found.mean <= 0 or abs(found.mean) == inf:
        return "inconclusive"
    return "positive" if found.direction > 0 else "negative"
