"""Scores from a source's own predictions: LEEP, NCE, and N-LEEP without a source head.

Sources: Nguyen et al., LEEP, ICML 2020 (arXiv:2002.12462); Tran, Nguyen, Hassner, ICCV 2019
(arXiv:1908.08142); Li et al., N-LEEP, CVPR 2021 (arXiv:2011.11200).

None is comparable over numbers of items or classes: few items look better than many.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from transferlab.transferability.arrays import (
    Codes,
    Floats,
    Scorer,
    class_sums,
    encoded,
    table,
    thin_svd,
)

SUM_TOLERANCE = 1e-3
ENERGY = 0.8
"""Share of the variance that N-LEEP's principal directions keep."""
COMPONENTS = 5
"""Gaussians a class in N-LEEP."""


def leep(source_probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean log-likelihood of the labels, predicted through the source's classes.

    P(y | z) is the empirical conditional of labels given source classes; an item's label gets
    sum_z P(y | z) p(z | item). Source classes that no item is given to are left out.

    Args:
        source_probs: (N, S) probabilities of the source's classes, rows summing to 1.
        labels: (N,) target classes.

    Returns:
        nats an item, at most 0; higher is better.

    Raises:
        ValueError: shapes that do not fit, rows that are no probabilities, or one class.
    """
    return leep_of(source_probs)(labels)


def leep_of(source_probs: ArrayLike) -> Scorer:
    """Return :func:`leep` of these source probabilities, as a function of the labels."""
    probs = _probabilities(source_probs)

    def score(labels: ArrayLike) -> float:
        codes = encoded(labels, len(probs))
        joint = class_sums(probs, codes)[0]
        of_source = joint.sum(axis=0)
        seen = of_source > 0
        given = joint[:, seen] / of_source[seen]
        return float(np.log((given[codes] * probs[:, seen]).sum(axis=1)).mean())

    return score


def nce(source_labels: ArrayLike, labels: ArrayLike) -> float:
    """Negative conditional entropy -H(label | source class).

    Args:
        source_labels: (N,) the source class of every item, such as the source's prediction.
        labels: (N,) target classes.

    Returns:
        nats, at most 0; higher is better. Equal to LEEP where source probabilities are one-hot.

    Raises:
        ValueError: shapes that do not fit, or one target class.
    """
    given = np.asarray(source_labels)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"source_labels has shape {given.shape}: expected (items,).")
    source = encoded(given, len(given), "source_labels", classes=1)
    codes = encoded(labels, len(given))
    joint = _counts(codes, source)
    share = joint / joint.sum(axis=0)
    return float((joint[joint > 0] * np.log(share[joint > 0])).sum() / len(given))


def n_leep(features: ArrayLike, labels: ArrayLike) -> float:
    """LEEP with the components of a Gaussian mixture on the features as source classes.

    Features are projected on the principal directions that hold 80 % of their variance; the
    mixture has five components a class, at most one an item, with variances along these directions
    alone: a whole covariance would rest on a handful of items. Rows are put in one order first,
    so that the mixture's start does not depend on theirs.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        nats an item, at most 0; with fewer than about ten items a class it says little.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    x = table(features)
    codes = encoded(labels, len(x))
    return n_leep_of(x, int(codes.max()) + 1)(labels)


def n_leep_of(features: ArrayLike, classes: int) -> Scorer:
    """Return :func:`n_leep` of these features for so many classes, as a function of the labels."""
    x = table(features)
    order = np.lexsort(x.T)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return leep_of(_posteriors(x[order], classes)[back])


def _posteriors(x: Floats, classes: int) -> Floats:
    left, singular = thin_svd(x - x.mean(axis=0))
    if not len(singular):
        return np.ones((len(x), 1))
    energy = np.cumsum(singular**2) / (singular**2).sum()
    width = int(np.searchsorted(energy, ENERGY - 1e-12)) + 1
    projected = (left * singular)[:, :width]
    projected /= projected.std(axis=0).max()  # the mixture's floor of variances is absolute
    components = min(COMPONENTS * classes, len(np.unique(x, axis=0)))
    mixture = GaussianMixture(components, covariance_type="diag", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps say enough
        probs = mixture.fit(projected).predict_proba(projected)
    return np.asarray(probs, dtype=np.float64)


def _probabilities(source_probs: ArrayLike) -> Floats:
    probs = table(source_probs, "source_probs", rows=1)
    off = np.abs(probs.sum(axis=1) - 1).max()
    if (probs < 0).any() or off > SUM_TOLERANCE:
        raise ValueError(
            f"source_probs: the smallest is {probs.min():.3g} and a row's sum is off by {off:.3g}. "
            "Pass probabilities, such as the softmax of the source's logits."
        )
    return probs


def _counts(codes: Codes, source: Codes) -> Floats:
    """Return the (C, S) table of how often label and source class meet."""
    found = np.zeros((codes.max() + 1, source.max() + 1))
    np.add.at(found, (codes, source), 1.0)
    return found
