"""How soon an arm gets good enough, and how many targets a pretraining has to serve to pay off."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from numpy.typing import ArrayLike

TAU = 0.95
"""Share of scratch's final validation score that is good enough."""


@dataclass(frozen=True)
class Time:
    """When a curve first reached a target, in the unit of its steps.

    Attributes:
        value: the step; the last one seen where it was never reached.
        reached: whether it was; if not, the time is some value above this one.
    """

    value: float
    reached: bool

    def __str__(self) -> str:
        """The time with its bound, as ``> 500``."""
        return f"{'' if self.reached else '> '}{self.value:.4g}"


def time_to_accuracy(steps: ArrayLike, scores: ArrayLike, target: float) -> Time:
    """Find the first validation at which a run is good enough.

    Args:
        steps: (K,) when the run was validated, rising: in steps, seconds or kWh.
        scores: (K,) its validation scores, higher is better; NaN where it diverged.
        target: score that is good enough; for a comparison `TAU` times scratch's final one.

    Returns:
        The time, right-censored at the last validation.

    Raises:
        ValueError: shapes disagree, steps don't rise, or the target is not finite.
    """
    when, curve = np.asarray(steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if when.ndim != 1 or when.shape != curve.shape or when.size == 0:
        raise ValueError(
            f"steps have shape {when.shape} and scores {curve.shape}. Pass one score per "
            "validation of one run."
        )
    if not (np.isfinite(when).all() and (np.diff(when) > 0).all() and isfinite(target)):
        raise ValueError(
            f"steps={when.tolist()} must be finite and rise, and target={target} be finite. Sort "
            "the validations, and leave out a run whose target is unknown."
        )
    good = np.flatnonzero(curve >= target)
    return Time(float(when[good[0]]), True) if len(good) else Time(float(when[-1]), False)


def median_time(times: Sequence[Time]) -> Time:
    """The median of right-censored times, itself censored where it falls among them.

    A run that never got there counts as slower than every run that did.

    Raises:
        ValueError: there are no times.
    """
    if not times:
        raise ValueError("The median of no times is undefined. Pass at least one.")
    ordered = sorted(times, key=lambda time: (not time.reached, time.value))
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    mean = sum(time.value for time in middle) / len(middle)
    return Time(mean, all(time.reached for time in middle))


def break_even_targets(pretrain_cost: float, saving_per_target: float) -> float:
    """How many targets a pretraining has to serve until what they save has paid for it.

    Args:
        pretrain_cost: cost of the source run, 0 or more, in seconds, steps or kWh.
        saving_per_target: what a target costs less than from scratch, in the same unit.

    Returns:
        cost / saving; infinite where nothing is saved, 0 where nothing was paid.

    Raises:
        ValueError: a number is not finite, or the cost is negative.
    """
    if not (isfinite(pretrain_cost) and isfinite(saving_per_target)) or pretrain_cost < 0:
        raise ValueError(
            f"pretrain_cost={pretrain_cost} and saving_per_target={saving_per_target} must be "
            "finite, and the cost not negative. Take medians over runs that reached the target."
        )
    if pretrain_cost == 0:
        return 0.0
    return pretrain_cost / saving_per_target if saving_per_target > 0 else inf
