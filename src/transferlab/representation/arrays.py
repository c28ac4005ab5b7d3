"""What every comparison of representations asks of its arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def sample_of(values: ArrayLike, name: str, rows: int = 2) -> Floats:
    """Return (N, D) finite float64 values.

    Raises:
        ValueError: not two-dimensional, too few rows, no columns, or not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] < rows or found.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {found.shape}: expected (items, features) with at least {rows} "
            "items and one feature."
        )
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        raise ValueError(f"{name}: {bad} of {len(found)} rows hold NaN or infinity. Drop them.")
    return found


def two_samples(x: ArrayLike, y: ArrayLike, rows: int = 2) -> tuple[Floats, Floats]:
    """Return two samples of the same features, (n, D) and (m, D).

    Raises:
        ValueError: as :func:`sample_of`, or different numbers of features.
    """
    first, second = sample_of(x, "x", rows), sample_of(y, "y", rows)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"x has {first.shape[1]} features and y has {second.shape[1]}: expected the same ones."
        )
    return first, second
