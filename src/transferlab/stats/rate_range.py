"""The learning-rate range test: which rates to try, when to stop, and which one to suggest."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def exponential_rates(low: float, high: float, count: int) -> Floats:
    """Return (count,) rates from ``low`` to ``high``, each the same multiple of the one before."""
    return np.geomspace(low, high, count)


def smoothed(losses: Sequence[float], beta: float = 0.98) -> Floats:
    """Return the running mean with exponential weights, corrected for its start at zero.

    Element k is sum_i beta^(k-i) loss_i / sum_i beta^(k-i) over i <= k.

    Args:
        losses: (n,) finite.
        beta: in [0, 1); 0 smooths nothing.
    """
    mean, out = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        out.append(mean / (1 - beta**step))
    return np.array(out)


def diverged(losses: Sequence[float], times: float = 4.0, beta: float = 0.98) -> bool:
    """Say whether the last loss is not finite, or ends a smoothed rise to ``times`` its best.

    Source: Smith, WACV 2017 (arXiv:1506.01186), with the stopping rule of fastai.
    """
    if losses and not math.isfinite(losses[-1]):
        return True
    curve = smoothed(losses, beta)
    return len(curve) > 1 and bool(curve[-1] > times * curve[:-1].min())


def steepest_fall(losses: Sequence[float], width: int = 5) -> int | None:
    """Return where the loss falls fastest along rates that grow exponentially.

    The curve is smoothed evenly to both sides (an exponential mean lags behind, and its steepest
    place comes several-fold too late), then searched up to its lowest point.

    Args:
        losses: (n,) finite, at equal distances on the axis of log rate.
        width: standard deviation of the smoothing, in points.

    Returns:
        an index, or None if the loss nowhere falls.
    """
    values = np.asarray(losses, dtype=np.float64)
    if len(values) < 3:
        return None
    curve = two_sided(values, width)
    lowest = int(curve.argmin())
    slopes = np.gradient(curve)[: lowest + 1]
    steepest = int(slopes.argmin())
    falls = slopes[steepest] < -1e-9 * np.abs(curve).max()  # below it is rounding
    return steepest if falls else None


def two_sided(losses: Sequence[float] | Floats, width: int = 5) -> Floats:
    """Return a Gaussian mean around each point; at the ends over the points that there are."""
    values = np.asarray(losses, dtype=np.float64)
    distance = np.arange(len(values))[:, None] - np.arange(len(values))[None, :]
    weights = np.exp(-0.5 * (distance / width) ** 2)
    means: Floats = weights @ values / weights.sum(1)
    return means
