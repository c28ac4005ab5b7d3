"""Logistic regression on features, to its optimum."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from transferlab.errors import UserError
from transferlab.heads.solved import Floats, SolvedHead

STEPS = 1000
"""Of L-BFGS at the most; standardised features take some tens."""


class LogisticHead(SolvedHead):
    """Multinomial logistic regression with a quadratic penalty, by L-BFGS.

    Source: Kornblith, Shlens, Le, CVPR 2019 (arXiv:1805.08974), which compares backbones by it;
    scikit-learn's ``LogisticRegression``.

    Args:
        in_features: width F of the features.
        num_classes: C.
        c: how much the training set counts against the penalty: the inverse of its strength,
            positive.

    Shape:
        (B, F) -> (B, C).
    """

    def __init__(self, in_features: int, num_classes: int, c: float = 1.0) -> None:
        super().__init__(in_features, num_classes)
        if not c > 0:
            raise UserError(f"head.c={c}: expected a positive number.")
        self.c = c

    def solve(self, features: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return (C, F) weights and (C,) offsets for (N, F) features of C >= 2 classes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a large c on separable classes
            found = LogisticRegression(C=self.c, max_iter=STEPS).fit(features, labels)
        weight, offset = found.coef_, found.intercept_
        if len(weight) > 1:
            return weight, offset
        # of two classes scikit-learn gives the second one's alone
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-offset, offset]) / 2
