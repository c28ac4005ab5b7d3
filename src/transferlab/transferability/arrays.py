"""What every score asks of its arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Scorer = Callable[[ArrayLike], float]
"""A score with its features already worked on: called with labels, as often as one likes."""


def table(values: ArrayLike, name: str = "features", rows: int = 2) -> Floats:
    """Return (N, D) finite float64 values.

    Raises:
        ValueError: not two-dimensional, too few rows, no columns, or not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] < rows or found.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {found.shape}: expected (items, columns) with at least {rows} items "
            "and one column."
        )
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        raise ValueError(f"{name}: {bad} of {len(found)} rows hold NaN or infinity. Drop them.")
    return found


def encoded(labels: ArrayLike, items: int, name: str = "labels", classes: int = 2) -> Codes:
    """Number the classes that occur, in their order: (N,) codes in [0, C), none of them empty.

    Args:
        labels: (N,) classes by number or name.
        items: N.
        name: for messages.
        classes: how many must occur at the least.

    Raises:
        ValueError: another shape, NaN, or fewer classes.
    """
    given = np.asarray(labels)
    if given.shape != (items,):
        raise ValueError(f"{name} has shape {given.shape}: expected ({items},), one an item.")
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise ValueError(f"{name} holds NaN: give every item a class, or drop it.")
    names, codes = np.unique(given, return_inverse=True)
    if len(names) < classes:
        raise ValueError(f"{name} holds {len(names)} class: expected at least {classes}.")
    return codes.astype(np.int64)


def class_sums(values: Floats, codes: Codes) -> tuple[Floats, Floats]:
    """Return the (C, D) sums of rows by class and the (C,) counts, for codes of :func:`encoded`."""
    counts = np.bincount(codes).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    return np.add.reduceat(values[order], starts, axis=0), counts


def thin_svd(values: Floats) -> tuple[Floats, Floats]:
    """Return U (N, r) and the r singular values that are not rounding; r may be 0."""
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    limit = max(values.shape) * np.finfo(np.float64).eps * singular.max(initial=0.0)
    kept = singular > limit
    return left[:, kept], singular[kept]


def principal(values: Floats, width: int) -> Floats:
    """Return centred rows in their first ``width`` principal directions; (N, <= width)."""
    centred = values - values.mean(axis=0)
    left, singular = thin_svd(centred)
    projected: Any = (left * singular)[:, :width]
    return np.asarray(projected) if projected.shape[1] else np.zeros((len(values), 1))
