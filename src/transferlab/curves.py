"""Rates over a phase: functions of its progress in [0, 1) with values around (0, 1]."""

import math
from collections.abc import Callable

from transferlab.errors import UserError

Curve = Callable[[float], float]


class OneCycle:
    """Half a cosine up, half a cosine down.

    Source: Smith, arXiv:1803.09820, as fastai computes it.

    Args:
        pct_start: share of the phase that rises, in (0, 1).
        div: the peak over the first value.
        div_final: the peak over the last value.
    """

    def __init__(self, pct_start: float = 0.25, div: float = 25.0, div_final: float = 1e5) -> None:
        if not 0 < pct_start < 1 or div <= 0 or div_final <= 0:
            raise UserError(
                f"one_cycle: pct_start={pct_start}, div={div}, div_final={div_final}: expected a "
                "share in (0, 1) and positive divisors."
            )
        self.pct_start, self.div, self.div_final = pct_start, div, div_final

    def __call__(self, progress: float) -> float:
        """Return the factor at a progress in [0, 1]."""
        return _two_cosines(progress, self.pct_start, 1 / self.div, 1.0, 1 / self.div_final)


class MomentumCycle:
    """The momentum that goes with :class:`OneCycle`: high, low at the peak, high.

    Args:
        pct_start: as the rate's.
        high, low: in [0, 1).
    """

    def __init__(self, pct_start: float = 0.25, high: float = 0.95, low: float = 0.85) -> None:
        if not (0 < pct_start < 1 and 0 <= low <= high < 1):
            raise UserError(
                f"momentum_cycle: pct_start={pct_start}, low={low}, high={high}: expected a share "
                "in (0, 1) and 0 <= low <= high < 1."
            )
        self.pct_start, self.high, self.low = pct_start, high, low

    def __call__(self, progress: float) -> float:
        """Return the momentum at a progress in [0, 1]."""
        return _two_cosines(progress, self.pct_start, self.high, self.low, self.high)


class SlantedTriangular:
    """A short linear rise and a long linear fall.

    Source: Howard and Ruder, ACL 2018 (arXiv:1801.06146).

    Args:
        cut: share of the phase that rises, in (0, 1).
        ratio: the peak over the lowest value, above 1.
    """

    def __init__(self, cut: float = 0.1, ratio: float = 32.0) -> None:
        if not 0 < cut < 1 or ratio <= 1:
            raise UserError(
                f"slanted_triangular: cut={cut}, ratio={ratio}: expected a share in (0, 1) and a "
                "ratio above 1."
            )
        self.cut, self.ratio = cut, ratio

    def __call__(self, progress: float) -> float:
        """Return the factor at a progress in [0, 1]."""
        rising = progress < self.cut
        height = progress / self.cut if rising else 1 - (progress - self.cut) / (1 - self.cut)
        return (1 + height * (self.ratio - 1)) / self.ratio


class Constant:
    """The peak throughout."""

    def __call__(self, progress: float) -> float:
        """Return 1."""
        del progress
        return 1.0


def _two_cosines(progress: float, cut: float, start: float, middle: float, end: float) -> float:
    if progress < cut:
        return _cosine(start, middle, progress / cut)
    return _cosine(middle, end, (progress - cut) / (1 - cut))


def _cosine(start: float, end: float, progress: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - progress))) * (end - start) / 2
