"""Separation of the classes in feature space: TransRate and GBC.

Sources: Huang et al., TransRate, ICML 2022 (arXiv:2106.09362); Pándy, Agostinelli, Uijlings,
Ferrari, Mensink, CVPR 2022 (arXiv:2111.12780).
"""

import numpy as np
from numpy.typing import ArrayLike

from transferlab.transferability.arrays import (
    Floats,
    Scorer,
    class_sums,
    encoded,
    principal,
    table,
)

EPSILON = 1e-4
"""Squared distortion of TransRate's coding rate."""
GBC_WIDTH = 64
VARIANCE_FLOOR = 1e-4


def transrate(features: ArrayLike, labels: ArrayLike) -> float:
    """Coding rate of all features minus the mean coding rate within a class, weighted by size.

    R(Z) = 1/2 logdet(I + Z'Z / (n eps)), eps = 1e-4, on features centred over all items. The
    weakest of the scores: it depends on the features' scale, hardly falls for shuffled labels, and
    variances alone can raise it.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        nats, at least 0; higher is better.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    return transrate_of(features)(labels)


def transrate_of(features: ArrayLike) -> Scorer:
    """Return :func:`transrate` of these features, as a function of the labels."""
    x = table(features)
    centred = x - x.mean(axis=0)
    whole = _rate(centred)

    def score(labels: ArrayLike) -> float:
        codes = encoded(labels, len(x))
        counts = np.bincount(codes)
        within = [_rate(centred[codes == k]) * n for k, n in enumerate(counts)]
        return float(whole - sum(within) / len(x))

    return score


def gbc(features: ArrayLike, labels: ArrayLike) -> float:
    """Minus the summed Bhattacharyya coefficients of all pairs of classes, as spherical Gaussians.

    Features are projected to 64 principal directions where there are more. A class of one item
    has no variance of its own and gets the floor of 1e-4.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        in [-C (C - 1) / 2, 0], higher is better: 0 where no two classes overlap.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    return gbc_of(features)(labels)


def gbc_of(features: ArrayLike) -> Scorer:
    """Return :func:`gbc` of these features, as a function of the labels."""
    x = table(features)
    projected = principal(x, GBC_WIDTH) if x.shape[1] > GBC_WIDTH else x
    width = projected.shape[1]

    def score(labels: ArrayLike) -> float:
        codes = encoded(labels, len(x))
        sums, counts = class_sums(projected, codes)
        means = sums / counts[:, None]
        squares = class_sums((projected - means[codes]) ** 2, codes)[0]
        variances = np.maximum(squares.mean(axis=1) / counts, VARIANCE_FLOOR)
        first, second = np.triu_indices(len(counts), k=1)
        pooled = (variances[first] + variances[second]) / 2
        apart = ((means[first] - means[second]) ** 2).sum(axis=1) / pooled
        shapes = width * np.log(pooled / np.sqrt(variances[first] * variances[second]))
        return -float(np.exp(-apart / 8 - shapes / 2).sum())

    return score


def _rate(values: Floats) -> float:
    """Coding rate of (n, D) values."""
    gram = values @ values.T if len(values) < values.shape[1] else values.T @ values
    scaled = gram / (len(values) * EPSILON)
    return float(np.linalg.slogdet(np.eye(len(scaled)) + scaled)[1] / 2)
