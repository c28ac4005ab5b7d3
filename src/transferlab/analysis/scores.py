"""Test answers as scores, higher is better, for every metric that a verdict can be about."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from transferlab.analysis.load import Answers
from transferlab.stats.auroc import auroc, compare_auroc
from transferlab.stats.crossed import Comparison, compare
from transferlab.stats.metrics import item_brier

Floats = NDArray[np.float64]

METRICS = ("accuracy", "macro_recall", "auroc", "log_loss", "brier")
NEED_LOGITS = ("auroc", "brier")
"""Metrics that look at the scores of all classes, which predictions keep up to 100 classes."""


def compare_answers(
    transfer: Sequence[Any],
    scratch: Sequence[Any],
    metric: str,
    *,
    n_classes: int,
    clusters: NDArray[Any] | None,
    rho: float = 0.0,
) -> Comparison:
    """The paired difference of two arms' answers in a metric.

    Args:
        transfer: (n) answers of the arm; None stands for a guess at chance level.
        scratch: (n) answers of the other arm, likewise; at least one is no guess.
        metric: one of ``METRICS``.
        n_classes: classes that a guess would choose among.
        clusters: (M,) group of each item, or None.
        rho: share of the pool in a replicate's subset, for a claim about new target data.
    """
    labels = _labels([*transfer, *scratch])
    if metric == "auroc":
        first, second = (_class_scores(side, labels) for side in (transfer, scratch))
        return compare_auroc(first, second, _codes(labels), clusters=clusters, rho=rho)
    first, second = (_stacked(side, metric, labels, n_classes) for side in (transfer, scratch))
    classes = labels if metric == "macro_recall" else None
    return compare(first, second, clusters=clusters, classes=classes, rho=rho)


def run_scores(answers: Sequence[Answers], metric: str) -> Floats:
    """(n,) every run's score, higher is better: items weigh the same, or classes do."""
    labels = _labels(answers)
    if metric == "auroc":
        return auroc(_class_scores(answers, labels), _codes(labels))
    weights = np.ones(len(labels))
    if metric == "macro_recall":
        codes = _codes(labels)
        weights = 1 / np.bincount(codes)[codes]
    table = _stacked(answers, metric, labels, n_classes=2)  # there is no guess among them
    scores: Floats = table @ (weights / weights.sum())
    return scores


def _stacked(
    answers: Sequence[Answers | None], metric: str, labels: NDArray[Any], n_classes: int
) -> Floats:
    """(n, M) item scores; a guess gives every class the same chance."""
    chance = {
        "accuracy": 1 / n_classes,
        "macro_recall": 1 / n_classes,
        "log_loss": -float(np.log(n_classes)),
        "brier": -(1 - 1 / n_classes),
    }[metric]
    guess = np.full(len(labels), chance)
    return np.stack([guess if one is None else _item_scores(one, metric) for one in answers])


def _item_scores(answers: Answers, metric: str) -> Floats:
    if metric == "log_loss":
        return answers.log_prob
    if metric == "brier":
        logits = _logits(answers)
        return -item_brier(log_softmax(logits, axis=1), answers.labels.astype(np.int64))
    return answers.correct.astype(np.float64)


def _class_scores(answers: Sequence[Answers | None], labels: NDArray[Any]) -> Floats:
    """(n, M) for two classes, else (n, M, C), of the classes that the test items have."""
    present = np.unique(labels).astype(np.int64)
    rows = [
        np.zeros((len(labels), len(present)))
        if one is None
        else softmax(_logits(one), axis=1)[:, present]
        for one in answers
    ]
    table: Floats = np.stack(rows)
    return table[:, :, 1] if len(present) == 2 else table


def _logits(answers: Answers) -> Floats:
    if answers.logits is None:
        raise ValueError(
            "the predictions hold no logits (they are kept up to 100 classes), which this metric "
            "needs; judge by accuracy, macro_recall or log_loss."
        )
    return answers.logits.astype(np.float64)


def _labels(answers: Sequence[Answers | None]) -> NDArray[Any]:
    return next(one.labels for one in answers if one is not None)


def _codes(labels: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)
