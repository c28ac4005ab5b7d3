"""Transferability scores: how well features already tell a target's classes apart.

They rank sources. None of them contains a model trained from scratch, so none of them can say that
transfer hurts; that takes runs and a verdict.
"""

from transferlab.transferability.h_score import IllPosedWarning, h_score, regularized_h_score
from transferlab.transferability.leep import leep, n_leep, nce
from transferlab.transferability.logme import logme
from transferlab.transferability.neighbours import knn_accuracy, parc
from transferlab.transferability.permutation import permutation_z
from transferlab.transferability.separation import gbc, transrate

__all__ = [
    "IllPosedWarning",
    "gbc",
    "h_score",
    "knn_accuracy",
    "leep",
    "logme",
    "n_leep",
    "nce",
    "parc",
    "permutation_z",
    "regularized_h_score",
    "transrate",
]
