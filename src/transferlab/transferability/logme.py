"""LogME: how well a Bayesian linear model on the features explains the labels.

Source: You, Liu, Wang, Long, LogME, ICML 2021 (arXiv:2102.11005), with the exact maximum of the
evidence in place of its fixed point.
"""

import numpy as np
from numpy.typing import ArrayLike

from transferlab.transferability.arrays import Floats, Scorer, class_sums, encoded, table

RANGE = 1e8
"""The ratio of prior to noise precision is searched from mean / RANGE to mean x RANGE."""
GRID = 161
ZOOMS = 25
GOLDEN = (np.sqrt(5) - 1) / 2


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """Mean over classes of the maximal log evidence an item of a linear model on the features.

    There is no intercept, so a constant added to all features changes the score; their scale does
    not. Where N <= D the model interpolates: read the score against shuffled labels only
    (:func:`~transferlab.transferability.permutation_z`).

    Args:
        features: (N, D).
        labels: (N,) at least two classes; classes that do not occur do not count.

    Returns:
        nats an item, higher is better; comparable on the same items alone.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    return logme_of(features)(labels)


def logme_of(features: ArrayLike) -> Scorer:
    """Return :func:`logme` of these features, as a function of the labels."""
    x = table(features)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    sigma = singular**2

    def score(labels: ArrayLike) -> float:
        codes = encoded(labels, len(x))
        sums, counts = class_sums(left, codes)
        return float(_evidence(sigma, (sums**2).T, counts, len(x)).mean())

    return score


def _evidence(sigma: Floats, explained: Floats, norms: Floats, items: int) -> Floats:
    """Maximise the evidence over the ratio of precisions, a class at a time.

    Args:
        sigma: (K,) squared singular values.
        explained: (K, C) squared projections of the one-hot labels.
        norms: (C,) squared lengths of the one-hot labels.
        items: N.

    Returns:
        (C,) log evidence an item.
    """
    rest = np.maximum(norms - explained.sum(axis=0), 0.0)

    def evidence(log_ratio: Floats) -> Floats:
        """Map (G, C) or (G, 1) logarithms to (G, C)."""
        shrink = 1 / (1 + sigma / np.exp(log_ratio)[..., None])
        if log_ratio.shape[1] == 1:
            left = shrink[:, 0] @ explained
        else:
            left = np.einsum("gck,kc->gc", shrink, explained)
        penalty = -np.log(shrink).sum(axis=-1)
        fit = items * (np.log(items / (left + rest)) - 1 - np.log(2 * np.pi))
        return np.asarray((fit - penalty) / (2 * items))

    if not sigma.mean() > 0:  # features that are all zero explain nothing
        return np.asarray(evidence(np.zeros((1, 1)))[0])
    centre, reach = np.log(sigma.mean()), np.log(RANGE)
    grid = np.linspace(centre - reach, centre + reach, GRID)
    best = evidence(grid[:, None]).argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    for _ in range(ZOOMS):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        values = evidence(np.stack([a, b]))
        left = values[0] >= values[1]
        low, high = np.where(left, low, a), np.where(left, b, high)
    return np.asarray(evidence(((low + high) / 2)[None])[0])
