"""A paired difference of two arms known only by one score a run, not by its answers item by item.

The part of the variance that test items bring is then unknown: what is computed holds for the very
test items that were scored.
"""

from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferlab.stats.anova import SAME
from transferlab.stats.crossed import Comparison

Floats = NDArray[np.float64]


def compare_scores(transfer: ArrayLike, scratch: ArrayLike, *, n_items: int = 0) -> Comparison:
    """Estimate the mean paired difference of n runs' scores: a paired t test over runs.

    The test part is set to zero since it can't be estimated, so all that follows is conditional on
    this test set.

    Args:
        transfer: (n,) scores, one a replicate, higher is better.
        scratch: (n,) scores of the same replicates, in the same order.
        n_items: test items that each score is over; 0 where unknown.

    Returns:
        The estimate; ``reason`` is ``single_replicate`` for one pair, and ``degenerate`` where
        all differences are equal, also where all are zero: equal scores are not equal answers.

    Raises:
        ValueError: shapes disagree, nothing was passed, or a score is not finite.
    """
    first, second = _scores(transfer, scratch)
    difference = first - second
    n, delta = len(difference), float(difference.mean())
    reason = "single_replicate" if n == 1 else ""
    if not reason and float(np.ptp(difference)) <= SAME * float(np.abs([first, second]).max()):
        reason = "degenerate"
    if reason:
        return Comparison(delta, nan, nan, n, n_items, reason)
    return Comparison(delta, float(difference.var(ddof=1)) / n, 0.0, n, n_items)


def largest_test_part(transfer: ArrayLike, scratch: ArrayLike, n_items: int) -> float:
    """Upper bound of the variance that test items bring to a difference of two accuracies.

    Two runs right on shares a and b of the same items differ on at most min(a + b, 2 - a - b) of
    them, whichever these are, and the difference of an item is -1, 0 or 1. So its variance is at
    most that share less the squared mean difference. Averaging over runs only makes it smaller.

    Args:
        transfer: (n,) accuracies in [0, 1].
        scratch: (n,) accuracies of the same replicates.
        n_items: test items M, 2 or more.

    Returns:
        The largest B, in shares squared.

    Raises:
        ValueError: an accuracy lies outside [0, 1], or there are fewer than 2 items.
    """
    first, second = _scores(transfer, scratch)
    both = np.concatenate([first, second])
    if both.min() < 0 or both.max() > 1 or n_items < 2:
        raise ValueError(
            f"accuracies from {both.min()} to {both.max()} over n_items={n_items} have no bound. "
            "Use shares from 0 to 1 and 2 or more test items."
        )
    a, b = float(first.mean()), float(second.mean())
    return max(min(a + b, 2 - a - b) - (a - b) ** 2, 0.0) / (n_items - 1)


def _scores(transfer: ArrayLike, scratch: ArrayLike) -> tuple[Floats, Floats]:
    first, second = (np.asarray(side, dtype=np.float64) for side in (transfer, scratch))
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"transfer has shape {first.shape} and scratch {second.shape}; they are one score a "
            "replicate, paired. Keep the replicates both arms have."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(
            "a score is not finite. Drop the pairs in which a run failed, and report them."
        )
    return first, second
