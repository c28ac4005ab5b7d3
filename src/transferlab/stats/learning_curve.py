"""Transfer over the size of the target: what it is worth in images, and where it stops helping."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isinf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression
from scipy.special import stdtr, stdtrit

from transferlab.stats.anova import SAME, Floats
from transferlab.stats.decision import Word
from transferlab.stats.verdict import Interval

ENOUGH = 10
"""Replicates from which on resampling them gives an interval; fewer show their range."""

WORDS: tuple[Word, ...] = ("positive", "equivalent", "negative", "inconclusive", "not_assessable")


@dataclass(frozen=True)
class Amount:
    """A number of training images, or a bound of it.

    Attributes:
        images: the number; the curve's largest or smallest size where it is censored.
        censored: ``>=`` where scratch never gets so good, ``<`` where it is never so bad, else
            empty.
    """

    images: float
    censored: Literal["", ">=", "<"] = ""

    def __str__(self) -> str:
        """The number with its bound, as ``>= 500``."""
        return f"{self.censored} {self.images:.4g}".lstrip()


@dataclass(frozen=True)
class DataEquivalent:
    """What transfer at one size is worth in images that scratch would need.

    Attributes:
        size: training images n that transfer had.
        equivalent: images with which scratch is as good.
        transferred: equivalent less n; negative where transfer costs images; a bound where the
            equivalent is one.
        multiplier: equivalent over n; a bound likewise.
        low: lower end over replicates.
        high: upper end.
        kind: ``interval`` at the asked level from resampled replicates, ``range`` of fewer than
            ten single replicates, or ``none`` for a single one.
    """

    size: float
    equivalent: Amount
    transferred: float
    multiplier: float
    low: Amount
    high: Amount
    kind: Literal["interval", "range", "none"]


@dataclass(frozen=True)
class Crossover:
    """Where transfer stops being of use.

    Attributes:
        last_positive: largest size with the verdict ``positive``; None where there is none.
        first_without: the size from which on no verdict is positive; None where the last one is.
    """

    last_positive: float | None
    first_without: float | None


@dataclass(frozen=True)
class Slope:
    """How a gain changes with the size of the target.

    Attributes:
        value: mean over replicates of the slope of the gain on ln n; above 0, transfer does
            better, or harms less, the larger the target. Times ln 2 it is the change a doubling.
        ci95: its 95 % t interval over replicates, conditional on this test set; NaN where
            undefined.
        p: two-sided p of no change; NaN likewise.
        per_replicate: (n,) the slopes.
        reason: why there is no interval: ``single_replicate`` or ``degenerate``; empty where there
            is.
    """

    value: float
    ci95: Interval
    p: float
    per_replicate: tuple[float, ...]
    reason: str


def data_equivalent(
    sizes: ArrayLike,
    scratch: ArrayLike,
    transfer: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> list[DataEquivalent]:
    """Say how many images scratch would need to be as good as transfer is, at each size.

    Scratch's mean score is made rising by isotonic regression over ln n, joined by straight lines
    and inverted. Where it is flat, many sizes are as good, and the one nearest to n is taken:
    a stretch on which images don't matter is evidence of neither gain nor loss.

    Args:
        sizes: (S,) training images, rising and above 0, at least two.
        scratch: (S, n) scores of scratch, one column per replicate, higher is better.
        transfer: (S, n) scores of the arm, of the same replicates.
        level: share of the resampled values inside the interval, in (0, 1).
        draws: times that the replicates are drawn anew, whole columns of both arms together.
        seed: of the draws.

    Returns:
        One entry per size. An arm better than scratch ever gets is ">=" the largest size, one
        worse than scratch ever is "<" the smallest.

    Raises:
        ValueError: shapes disagree, sizes don't rise, a score is not finite, or level or draws is
            out of range.

    Source: effective data transferred, Hernandez et al., arXiv:2102.01293.
    """
    images = _images(sizes)
    own, base = (
        _curves(name, values, len(images))
        for name, values in (("transfer", transfer), ("scratch", scratch))
    )
    if own.shape != base.shape:
        raise ValueError(
            f"transfer has shape {own.shape} and scratch {base.shape}; they are paired by "
            "replicate. Keep the replicates both arms have."
        )
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level={level} must lie in (0, 1), and draws={draws} be 1 or more.")
    n, logs = own.shape[1], np.log(images)
    centre = _equivalents(logs, base.mean(axis=1), own.mean(axis=1))
    if n < ENOUGH:
        picks = np.arange(n)[:, None]
        tail = 0.0
    else:
        picks = np.random.default_rng(seed).integers(0, n, size=(draws, n))
        tail = (1 - level) / 2
    cloud = np.array(
        [_equivalents(logs, base[:, p].mean(axis=1), own[:, p].mean(axis=1)) for p in picks]
    )
    # Order statistics, as censored values have no mean with others.
    low, high = np.quantile(cloud, [tail, 1 - tail], axis=0, method="inverted_cdf")
    rows = zip(images, centre, low, high, strict=True)
    return [_entry(float(size), images, n, *map(float, places)) for size, *places in rows]


def crossover(sizes: ArrayLike, words: Sequence[str]) -> Crossover:
    """Bracket the size from which on the verdict is never ``positive``.

    An undecided size counts as one that is not positive; the bracket says where help was last
    shown, not that it is absent above. Take words that Holm adjusted over the sizes.

    Args:
        sizes: (S,) training images, rising.
        words: (S,) verdict at each size.

    Returns:
        The last positive size and the one after it.

    Raises:
        ValueError: sizes don't rise, or there is not one known word for each.
    """
    images = _images(sizes, least=1)
    strange = sorted({*words} - {*WORDS})
    if len(words) != len(images) or strange:
        raise ValueError(
            f"{len(words)} words for {len(images)} sizes{', unknown: ' if strange else ''}"
            f"{', '.join(strange)}. Pass one of {', '.join(WORDS)} for each size."
        )
    helps = [number for number, word in enumerate(words) if word == "positive"]
    last = helps[-1] if helps else -1
    return Crossover(
        float(images[last]) if helps else None,
        float(images[last + 1]) if last + 1 < len(images) else None,
    )


def harm_slope(sizes: ArrayLike, deltas: ArrayLike) -> Slope:
    """Test whether the gain of transfer changes with the size of the target.

    Each replicate, whose target subsets are nested, has its least-squares slope on ln n; the
    slopes are tested by Student's t. A slope above 0 says that harm shrinks, not that it ends.

    Args:
        sizes: (S,) training images, rising and above 0, at least two.
        deltas: (S, n) score of transfer minus that of scratch, one column per replicate.

    Returns:
        The mean slope, in score per unit of ln n, with its interval and p.

    Raises:
        ValueError: shapes disagree, sizes don't rise, or a difference is not finite.
    """
    logs = np.log(_images(sizes))
    gains = _curves("deltas", deltas, len(logs))
    centred = logs - logs.mean()
    slopes: Floats = centred @ gains / float(centred @ centred)
    n, mean, rows = len(slopes), float(slopes.mean()), tuple(map(float, slopes))
    scale = float(np.abs(gains).max()) / float(np.ptp(logs))
    if n == 1 or np.ptp(slopes) <= SAME * scale:
        return Slope(mean, (nan, nan), nan, rows, "single_replicate" if n == 1 else "degenerate")
    error = float(slopes.std(ddof=1)) / sqrt(n)
    half = -float(stdtrit(n - 1, 0.025)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Slope(mean, (mean - half, mean + half), p, rows, "")


def _entry(
    size: float, images: Floats, n: int, centre: float, low: float, high: float
) -> DataEquivalent:
    """What the ln of an equivalent size and of its ends comes to."""
    equivalent = _amount(centre, images)
    return DataEquivalent(
        size=size,
        equivalent=equivalent,
        transferred=equivalent.images - size,
        multiplier=equivalent.images / size,
        low=_amount(low, images) if n > 1 else Amount(nan),
        high=_amount(high, images) if n > 1 else Amount(nan),
        kind="interval" if n >= ENOUGH else "range" if n > 1 else "none",
    )


def _equivalents(logs: Floats, scratch: Floats, transfer: Floats) -> Floats:
    """(S,) ln of the equivalent sizes; infinite where censored."""
    rising: Floats = isotonic_regression(scratch).x
    return np.array(
        [_inverse(logs, rising, score, own) for score, own in zip(transfer, logs, strict=True)]
    )


def _inverse(logs: Floats, rising: Floats, score: float, own: float) -> float:
    """The place on ``logs`` where a rising curve takes a score; the nearest to ``own`` of many."""
    rounding = SAME * max(abs(float(rising[0])), abs(float(rising[-1])))
    if score > rising[-1] + rounding:
        return inf
    if score < rising[0] - rounding:
        return -inf
    alike = np.flatnonzero(np.abs(rising - score) <= rounding)
    if len(alike):
        return float(np.clip(own, logs[alike[0]], logs[alike[-1]]))
    return float(np.interp(score, rising, logs))


def _amount(place: float, images: Floats) -> Amount:
    if isinf(place):
        return Amount(float(images[-1]), ">=") if place > 0 else Amount(float(images[0]), "<")
    return Amount(exp(place))


def _images(sizes: ArrayLike, least: int = 2) -> Floats:
    values = np.asarray(sizes, dtype=np.float64)
    if values.ndim != 1 or len(values) < least or not (np.diff(values) > 0).all():
        raise ValueError(
            f"sizes={values.tolist()} don't rise or are fewer than {least}. Pass the training "
            "images of each size once, smallest first, and the scores in that order."
        )
    if not (np.isfinite(values).all() and values[0] > 0):
        raise ValueError(f"sizes={values.tolist()} hold what is no size. Use numbers above 0.")
    return values


def _curves(name: str, values: ArrayLike, sizes: int) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or len(table) != sizes or table.size == 0:
        raise ValueError(
            f"{name} has shape {table.shape} for {sizes} sizes. Pass one row per size and one "
            "column per replicate."
        )
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(
            f"{name}[{row}, {column}] is {table[row, column]}. Drop replicate {column} from both "
            "arms at every size, and report it as a failure."
        )
    return table
