"""Ridge regression on features, in closed form."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from transferlab.errors import UserError
from transferlab.heads.solved import Floats, SolvedHead
from transferlab.stats.calibration import fit_temperature

STRENGTHS = tuple(10.0**power for power in range(-3, 7))
"""Penalties that are tried where none is given."""


class RidgeHead(SolvedHead):
    """Ridge regression of 1 for an image's class and -1 for the others.

    The penalty is the one with the least squared error on training images that are left out, one
    at a time, which ridge regression has in closed form. What it says of left-out images is also
    multiplied by what makes their labels likeliest, so that the scores serve as logits.

    Source: Rifkin, Lippert, MIT CSAIL TR 2007-025; scikit-learn's ``RidgeCV``.

    Args:
        in_features: width F of the features.
        num_classes: C.
        alpha: the penalty, positive; None chooses among 1e-3 to 1e6 by powers of 10.

    Shape:
        (B, F) -> (B, C).
    """

    def __init__(self, in_features: int, num_classes: int, alpha: float | None = None) -> None:
        super().__init__(in_features, num_classes)
        if alpha is not None and not alpha > 0:
            raise UserError(f"head.alpha={alpha}: expected a positive number, or null to choose.")
        self.alphas = list(STRENGTHS) if alpha is None else [float(alpha)]

    def solve(self, features: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return (C, F) weights and (C,) offsets for (N, F) features of C >= 2 classes."""
        targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
        found = RidgeCV(self.alphas, scoring="neg_mean_squared_error", store_cv_results=True).fit(
            features, targets
        )
        left_out = found.cv_results_[:, :, self.alphas.index(found.alpha_)]
        scale = 1.0 / fit_temperature(left_out, labels).value
        return scale * found.coef_, scale * found.intercept_
