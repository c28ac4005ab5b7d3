"""A score against what it is worth under labels that mean nothing."""

import numpy as np
from numpy.typing import ArrayLike

from transferlab.transferability.arrays import Codes, Scorer, encoded

ROUNDING = 1e-10


def permutation_z(
    score: Scorer,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> float:
    """Standard deviations by which a score of the labels lies above that of shuffled labels.

    Args:
        score: of labels, higher is better: ``lambda y: logme(features, y)``, or a prepared
            ``logme_of(features)``, which works on the features once.
        labels: (N,).
        groups: (N,) what items belong together; each of one class. Labels are then shuffled among
            groups, since items of one group are no independent evidence. None: among items.
        shuffles: at least 2. With 20, z of a score that sees nothing has about Student's t with 19
            degrees of freedom.
        seed: of the shuffles.

    Returns:
        z; NaN where shuffling the labels does not change the score.

    Raises:
        ValueError: fewer than 2 shuffles, a group of several classes, or what the score raises.
    """
    if shuffles < 2:
        raise ValueError(f"shuffles={shuffles}: a spread takes at least 2.")
    codes = encoded(labels, np.size(np.asarray(labels)))
    units = np.arange(len(codes)) if groups is None else encoded(groups, len(codes), "groups")
    of_unit = _labels_of_units(codes, units)
    rng = np.random.default_rng(seed)
    null = np.array([score(rng.permutation(of_unit)[units]) for _ in range(shuffles)])
    found, spread = score(codes), float(null.std(ddof=1))
    if not spread > ROUNDING * max(1.0, abs(found)):
        return float("nan")
    return float((found - null.mean()) / spread)


def _labels_of_units(codes: Codes, units: Codes) -> Codes:
    of_unit = np.zeros(units.max() + 1, dtype=np.int64)
    of_unit[units] = codes
    mixed = np.unique(units[of_unit[units] != codes])
    if len(mixed):
        raise ValueError(
            f"{len(mixed)} of {len(of_unit)} groups hold several classes, so that labels cannot be "
            "shuffled among groups. Pass groups=None."
        )
    return of_unit
