"""How many replicates, or test items, a verdict would take; and what a plan can show at best."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from transferlab.stats.crossed import Comparison, half_width

State = Literal["enough", "more_seeds", "more_test_items", "more_target_data", "unknown"]

MOST_SEEDS = 10**9  # a target so close to the test floor that it is out of reach


@dataclass(frozen=True)
class SeedsNeeded:
    """Replicates, counted in all and not on top, that would settle a comparison.

    Attributes:
        sign: replicates that would show the sign of a difference of the present size; None where
            no number would.
        equiv: replicates that would show equivalence; None where no number would, as always
            where the present difference is not inside the margin.
        next: the smaller of the two.
        guarantee: replicates that give an interval no wider than the margin, which is conclusive
            wherever it falls; None where no number would.
        floor_half_width: half-width of the interval with infinitely many replicates; NaN where
            there is none.
        test_items_needed: test items that would bring the verdict within reach, where replicates
            alone can't.
        state: ``enough`` replicates are in, ``more_seeds`` would settle it, ``more_test_items``
            are needed and more seeds cannot help, ``more_target_data`` where neither can, or
            ``unknown`` where the variance is.
    """

    sign: int | None
    equiv: int | None
    next: int | None
    guarantee: int | None
    floor_half_width: float
    test_items_needed: int | None
    state: State


def seeds_needed(comparison: Comparison, *, margin: float, alpha: float) -> SeedsNeeded:
    """Foresee how many replicates a comparison takes if its estimates stay as they are.

    Args:
        comparison: estimate and variance parts from `compare`.
        margin: half-width of the zone of equivalence, in the scores' unit.
        alpha: error rate each comparison gets: divided by the family's size and by the looks.

    Returns:
        The numbers; all None, state ``unknown``, where the variance parts are undefined.
    """
    c = comparison
    if c.reason == "identical_predictions":
        return SeedsNeeded(None, c.n_pairs, c.n_pairs, c.n_pairs, 0.0, None, "enough")
    if c.rho >= 1:
        return SeedsNeeded(None, None, None, None, nan, None, "more_target_data")
    if isnan(c.run_part) or isnan(c.test_part):
        return SeedsNeeded(None, None, None, None, nan, None, "unknown")
    size = abs(c.delta)
    # A two one-sided test spends alpha on one side, which is a two-sided rate of twice that.
    goals = [(size, alpha), (margin - size, 2 * alpha)]
    sign, equiv = (_replicates(c, target, rate) for target, rate in goals)
    reachable = [number for number in (sign, equiv) if number is not None]
    soonest = min(reachable, default=None)
    items = _items(c, goals) if soonest is None else None
    return SeedsNeeded(
        sign=sign,
        equiv=equiv,
        next=soonest,
        guarantee=_replicates(c, margin / 2, alpha),
        floor_half_width=_quantile(alpha) * sqrt(_floor(c)),
        test_items_needed=items,
        state=_state(c, soonest, items),
    )


def smallest_difference(
    n: int,
    M: int,
    *,
    run_sd: float,
    item_variance: float,
    alpha: float = 0.05,
    m: int = 1,
    power: float = 0.8,
) -> float:
    """Smallest true difference that a plan shows, by its sign, with the given power.

    Assumes normally distributed run differences whose sd is estimated from the n replicates, a
    test part known exactly (there are many items), and the first step of Holm's procedure, so an
    arm in a family with other clear effects does a little better. With ``item_variance=0`` this
    is the power of the paired t test.

    Args:
        n: replicates, 2 or more.
        M: test items, or clusters of them.
        run_sd: sd over replicates of the paired difference, in the metric's unit.
        item_variance: variance over items of the expected difference; `typical_item_variance`
            guesses it before any run is made.
        alpha: two-sided error rate of the family; divide it by the number of planned looks.
        m: declared size of the family.
        power: chance to show such a difference, in (alpha, 1).

    Returns:
        The difference, in the metric's unit and above 0.

    Raises:
        ValueError: a number is out of its range.
    """
    if n < 2 or M < 1 or m < 1 or run_sd < 0 or item_variance < 0:
        raise ValueError(
            f"n={n}, M={M}, m={m}, run_sd={run_sd} and item_variance={item_variance} plan no "
            "comparison. Use n >= 2, M >= 1, m >= 1, and no negative spread."
        )
    if not 0 < alpha / m < power < 1:
        raise ValueError(f"power={power} must lie between alpha/m={alpha / m:g} and 1, e.g. 0.8.")
    return _detectable(n, run_sd**2 / n, item_variance / M, alpha / m, power)


def typical_item_variance(
    accuracy: float = 0.9, discordance: float | None = None, persistence: float = 0.5
) -> float:
    """Guess the variance over test items of the expected difference, for a plan before any run.

    Two arms whose single runs disagree on a share q of the items have a difference of variance
    about q per item and run. Only what repeats over replicates counts for the test part; the rest
    is noise that averages out.

    Args:
        accuracy: what the arms will roughly reach, in [0, 1].
        discordance: share q of items that one arm gets right and the other wrong; by default
            that of moderately alike arms, ``accuracy * (1 - accuracy)``, half of what independent
            arms would have.
        persistence: share of that variance which repeats over replicates, in [0, 1].

    Returns:
        A variance per item, for a score of 0 or 1.

    Raises:
        ValueError: a share is outside [0, 1].
    """
    discordance = accuracy * (1 - accuracy) if discordance is None else discordance
    for name, share in [
        ("accuracy", accuracy), ("discordance", discordance), ("persistence", persistence)
    ]:  # fmt: skip
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share} is no share. Use a number from 0 to 1.")
    return discordance * persistence


@lru_cache
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 400 nodes of Gauss and Legendre, and their weights; worth no process's start."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights


def _detectable(n: int, run_part: float, test_part: float, alpha: float, power: float) -> float:
    spread = sqrt(run_part + test_part)
    if spread == 0:
        return 0.0
    nodes, weights = _nodes()
    share = (nodes + 1) / 2
    estimated = run_part * gammaincinv((n - 1) / 2, share) * 2 / (n - 1)  # chi-square quantiles
    t, z = stdtrit(n - 1, alpha / 2), ndtri(alpha / 2)
    widths = np.sqrt(t**2 * estimated + z**2 * test_part)

    def shortfall(size: float) -> float:
        shown = ndtr((size - widths) / spread) + ndtr((-size - widths) / spread)
        return float(weights @ shown) / 2 - power

    return float(brentq(shortfall, 0.0, 4 * float(widths.max()) + 10 * spread))


def _replicates(comparison: Comparison, target: float, alpha: float) -> int | None:
    """Fewest replicates whose half-width stays below ``target``; None where the floor is above."""
    variance, test_part = comparison.run_part * comparison.n_pairs, comparison.test_part
    if target <= _quantile(alpha) * sqrt(_floor(comparison)):
        return None

    def narrow(n: int) -> bool:
        return half_width(variance / n + comparison.target_part, test_part, n, alpha) < target

    return _first(narrow)


def _floor(comparison: Comparison) -> float:
    """Variance that no number of replicates removes."""
    return comparison.target_part + comparison.test_part


def _first(holds: Callable[[int], bool]) -> int | None:
    """Smallest integer from 2 for which a condition holds that, once true, stays true."""
    high = 2
    while not holds(high):
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _items(comparison: Comparison, goals: list[tuple[float, float]]) -> int | None:
    """Test items at which they take half of what the easiest goal's squared width leaves them.

    None where nothing is left: the target data alone, in any number of subsets, are too few.
    """
    needed = []
    for target, rate in goals:
        wide = _quantile(rate) ** 2
        room = target**2 - wide * comparison.target_part
        if target > 0 and room > 0:
            needed.append(2 * comparison.n_items * wide * comparison.test_part / room)
    fewest = min(needed, default=inf)
    return int(np.ceil(fewest)) if np.isfinite(fewest) else None


def _state(comparison: Comparison, soonest: int | None, items: int | None) -> State:
    if soonest is None:
        limited = comparison.rho > 0 and not items
        return "more_target_data" if limited else "more_test_items"
    return "enough" if soonest <= comparison.n_pairs else "more_seeds"


def _quantile(alpha: float) -> float:
    return -float(ndtri(alpha / 2))
