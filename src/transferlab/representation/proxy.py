"""Proxy A-distance: how well a linear classifier tells two samples apart.

Source: Ben-David, Blitzer, Crammer, Pereira, NeurIPS 2007; Ben-David et al., Machine Learning 2010.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from transferlab.representation.arrays import Floats, two_samples

SEED = 0
"""Of the split into halves, which is always the same for the same numbers of items."""


def proxy_a_distance(x: ArrayLike, y: ArrayLike) -> float:
    """2 (1 - 2 e), e the held-out balanced error of a logistic regression, clamped to [0, 2].

    Both samples are split into halves once; the classifier is trained on one half of the
    standardised features and tested on the other, and the other way round.

    Args:
        x: (n, D), n at least 4.
        y: (m, D), m at least 4.

    Returns:
        0 where the samples cannot be told apart, 2 where they always can. Nearly 2 for most pairs
        of data sets: a large gap says that the images differ, not that transfer hurts.

    Raises:
        ValueError: shapes that do not fit, too few items, or values that are not finite.
    """
    first, second = two_samples(x, y, rows=4)
    rng = np.random.default_rng(SEED)
    folds = [_halves(rng, len(first)), _halves(rng, len(second))]
    errors = []
    for fold in (0, 1):
        train, test = (
            [first[folds[0] == part], second[folds[1] == part]] for part in (fold, 1 - fold)
        )
        errors.append(_error(train, test))
    return float(np.clip(2 * (1 - 2 * np.mean(errors)), 0.0, 2.0))


def _halves(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.permutation(np.arange(count) % 2)


def _error(train: list[Floats], test: list[Floats]) -> float:
    """Return the mean of the two samples' shares of wrongly assigned items."""
    domains = np.repeat([0, 1], [len(part) for part in train])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300)
    )
    # beside runs on the same cores, a BLAS with threads of its own waits for them for seconds
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # separable data have no end
        model.fit(np.concatenate(train), domains)
    wrong = [(model.predict(part) != domain).mean() for domain, part in enumerate(test)]
    return float(np.mean(wrong))
