"""Linear CKA: how alike two representations of the same items are.

Source: Kornblith, Norouzi, Lee, Hinton, ICML 2019 (arXiv:1905.00414); the unbiased estimate of
HSIC is Song et al.'s, JMLR 2012.
"""

import numpy as np
from numpy.typing import ArrayLike

from transferlab.representation.arrays import Floats, sample_of


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """||Y'X||^2 / (||X'X|| ||Y'Y||) in Frobenius norms, of features centred over the items.

    Biased upward with few items: for n < 10 D read :func:`unbiased_linear_cka`.

    Args:
        x: (n, D) features.
        y: (n, E) other features of the same items.

    Returns:
        in [0, 1]: 1 where one is a rotation and scaling of the other.

    Raises:
        ValueError: different items, values that are not finite, or features that are constant.
    """
    first, second = _paired(x, y, rows=2)
    shared = _inner(first, second)
    own = _inner(first, first) * _inner(second, second)
    if not own > 0:
        raise ValueError("x or y is the same for all items: nothing there to compare.")
    return float(shared / np.sqrt(own))


def unbiased_linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear CKA from unbiased estimates of HSIC.

    Args:
        x: (n, D) features, n at least 4.
        y: (n, E) other features of the same items.

    Returns:
        at most 1; about 0, or a little below, for independent features.

    Raises:
        ValueError: different items, values that are not finite, fewer than 4 items, or features
            that are constant.
    """
    first, second = _paired(x, y, rows=4)
    k, m = _hollow(first), _hollow(second)
    own = _hsic(k, k) * _hsic(m, m)
    if not own > 0:
        raise ValueError("x or y is the same for all items: nothing there to compare.")
    return float(_hsic(k, m) / np.sqrt(own))


def _paired(x: ArrayLike, y: ArrayLike, rows: int) -> tuple[Floats, Floats]:
    first, second = sample_of(x, "x", rows), sample_of(y, "y", rows)
    if len(first) != len(second):
        raise ValueError(f"x has {len(first)} items and y has {len(second)}: pass the same items.")
    return _centred(first), _centred(second)


def _centred(values: Floats) -> Floats:
    """Centre over the items and divide by the largest value: CKA depends on neither."""
    centred = values - values.mean(axis=0)
    largest = np.abs(centred).max()
    negligible = 1e-12 * np.abs(values).max()
    return centred / largest if largest > negligible else np.zeros_like(centred)


def _inner(first: Floats, second: Floats) -> float:
    """Squared Frobenius norm of second' first, by whichever product is smaller."""
    if len(first) < first.shape[1] + second.shape[1]:
        return float(((first @ first.T) * (second @ second.T)).sum())
    return float(((second.T @ first) ** 2).sum())


def _hollow(values: Floats) -> Floats:
    gram = values @ values.T
    np.fill_diagonal(gram, 0.0)
    return np.asarray(gram)


def _hsic(k: Floats, m: Floats) -> float:
    """Unbiased HSIC of two Gram matrices without their diagonals."""
    n = len(k)
    of_k, of_m = k.sum(axis=0), m.sum(axis=0)
    total = (k * m).sum() + of_k.sum() * of_m.sum() / ((n - 1) * (n - 2))
    return float((total - 2 * (of_k @ of_m) / (n - 2)) / (n * (n - 3)))
