"""Distances between the means and covariances of two samples: Fréchet and CORAL.

Sources: Heusel et al., NeurIPS 2017 (arXiv:1706.08500); Sun, Feng, Saenko, CORAL, AAAI 2016
(arXiv:1511.05547).
"""

import numpy as np
from numpy.typing import ArrayLike

from transferlab.representation.arrays import Floats, sample_of, two_samples


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians with the samples' means and covariances.

    ||m - n||^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2), covariances with n - 1. Far above 0 for two
    small samples of the same data: read it beside :func:`frechet_floor`.

    Args:
        x: (n, D).
        y: (m, D).

    Returns:
        at least 0, in squared units of the features.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    first, second = two_samples(x, y)
    apart = first.mean(axis=0) - second.mean(axis=0)
    a, b = _root(first), _root(second)
    # with S = A'A and T = B'B the trace of the root is the sum of A B's singular values: no root
    # of a matrix has to be taken, and none comes out complex
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = apart @ apart + (a**2).sum() + (b**2).sum() - 2 * shared
    return float(max(distance, 0.0))


def frechet_floor(x: ArrayLike, seed: int = 0) -> float:
    """Fréchet distance between two random halves of one sample: what no difference looks like.

    The halves are smaller than the sample, so that the floor is on the safe side.

    Args:
        x: (n, D), n at least 4.
        seed: of the halves.

    Raises:
        ValueError: too few items, or values that are not finite.
    """
    values = sample_of(x, "x", rows=4)
    order = np.random.default_rng(seed).permutation(len(values))
    half = len(values) // 2
    return frechet_distance(values[order[:half]], values[order[half : 2 * half]])


def coral_distance(x: ArrayLike, y: ArrayLike) -> float:
    """||S - T||^2 / (4 D^2) in the Frobenius norm, of covariances with n - 1.

    Args:
        x: (n, D).
        y: (m, D).

    Returns:
        at least 0; means do not count.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    first, second = two_samples(x, y)
    a, b = _root(first), _root(second)
    return float(((a.T @ a - b.T @ b) ** 2).sum() / (4 * first.shape[1] ** 2))


def _root(values: Floats) -> Floats:
    """Return a matrix A of at most D rows with A'A = the covariance."""
    centred = (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)
    if len(centred) <= centred.shape[1]:
        return np.asarray(centred)
    return np.asarray(np.linalg.qr(centred, mode="r"))
