"""H-scores: how much of the features' spread lies between the classes.

Sources: Bao et al., ICIP 2019; Ibrahim, Ponomareva, Mazumder, 2021 (arXiv:2110.06893) for the
regularised form, which is the one to use.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from sklearn.covariance import LedoitWolf

from transferlab.transferability.arrays import Scorer, class_sums, encoded, table, thin_svd


class IllPosedWarning(RuntimeWarning):
    """A score is what it is whatever the labels are."""


def h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """tr(cov(X)^+ cov(E[X | y])): between-class spread in units of the whole spread.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        in [0, C - 1], higher is better. Its mean under shuffled labels is about
        (C - 1) D / (N - 1), so values are comparable for one N and D alone.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.

    Warns:
        IllPosedWarning: N <= D. The centred features then hold every labelling, and the score is
            C - 1 whatever the labels. Use :func:`regularized_h_score`.
    """
    return h_score_of(features)(labels)


def h_score_of(features: ArrayLike) -> Scorer:
    """Return :func:`h_score` of these features, as a function of the labels."""
    x = table(features)
    if len(x) <= x.shape[1]:
        warnings.warn(
            f"h_score of {len(x)} items with {x.shape[1]} features does not depend on the labels: "
            "use regularized_h_score.",
            IllPosedWarning,
            stacklevel=3,
        )
    left, _ = thin_svd(x - x.mean(axis=0))

    def score(labels: ArrayLike) -> float:
        # with X = U S V', cov(X)^+ whitens: what is left is the norm of U's class means
        sums, counts = class_sums(left, encoded(labels, len(x)))
        return float(((sums**2).sum(axis=1) / counts).sum())

    return score


def regularized_h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """tr(S^-1 (1 - a) cov(E[X | y])) with S, a: Ledoit and Wolf's covariance and shrinkage.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        at least 0 and, up to shrinkage, at most C - 1; higher is better. 0 for features that are
        constant.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    return regularized_h_score_of(features)(labels)


def regularized_h_score_of(features: ArrayLike) -> Scorer:
    """Return :func:`regularized_h_score` of these features, as a function of the labels."""
    x = table(features)
    centred = x - x.mean(axis=0)
    scale = np.abs(centred).max()
    constant = not scale > 0
    centred = centred if constant else centred / scale  # the score does not depend on it
    fitted = LedoitWolf(assume_centered=False).fit(centred)
    covariance, kept = fitted.covariance_, 1 - fitted.shrinkage_
    floor = np.finfo(np.float64).eps * np.trace(covariance)
    factor = None if constant else cho_factor(covariance + floor * np.eye(x.shape[1]))

    def score(labels: ArrayLike) -> float:
        sums, counts = class_sums(centred, encoded(labels, len(x)))
        if factor is None:
            return 0.0
        spread = (sums * cho_solve(factor, sums.T).T).sum(axis=1) / counts
        return float(kept * spread.sum() / (len(x) - 1))

    return score
