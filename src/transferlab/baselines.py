"""What a model has to beat: the majority class, and simple classifiers on raw pixels."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from transferlab.datasets.store import ImageStore
from transferlab.evaluation import sample
from transferlab.stats.metrics import accuracy, macro_recall

SIDE = 32
"""Pixels a side at the most: raw pixels beyond that cost much and help these classifiers little."""
TRAINING_IMAGES = 2000
"""Training images at the most, evenly spread over the subset."""
BLOCK = 2**22
"""Bytes of images that are averaged at a time; as floats they take four times as many."""


def baselines(
    store: ImageStore, train: NDArray[np.int64], test: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Score the majority class, logistic regression and k nearest neighbours on raw pixels.

    Args:
        store: the decoded images.
        train: positions of the replicate's training subset.
        test: positions of the test images.

    Returns:
        for each baseline its test accuracy and macro recall, and its settings.
    """
    train = sample(train, TRAINING_IMAGES)
    labels, truth = store.labels[train], store.labels[test]
    seen = np.bincount(labels, minlength=len(store.classes))
    found = {"majority": _scores(np.full(len(test), seen.argmax()), truth)}
    x, x_test = raw_pixels(store, train), raw_pixels(store, test)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    # beside other runs on the same cores, a BLAS with threads of its own waits for them for seconds
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        logistic.fit(x, labels)
    found["logistic_regression"] = _scores(logistic.predict(x_test), truth) | {"C": 0.01}
    k = 1 if seen[seen > 0].min() < 10 else 5
    neighbours = KNeighborsClassifier(n_neighbors=k).fit(x, labels)
    found["knn"] = _scores(neighbours.predict(x_test), truth) | {"k": k}
    return found


def _scores(prediction: NDArray[Any], truth: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "accuracy": accuracy(prediction, truth),
        "macro_recall": macro_recall(prediction, truth),
    }


def raw_pixels(store: ImageStore, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (N, C * side * side) pixels in [0, 1], averaged down to at most SIDE a side."""
    blocks = []
    count = max(BLOCK // int(np.prod(store.shape)), 1)
    for start in range(0, len(positions), count):
        images = store.images(positions[start : start + count]).astype(np.float32) / 255
        size = images.shape[-1]
        step = max(size // SIDE, 1)
        side = size // step
        cut = images[..., : side * step, : side * step]
        cut = cut.reshape(*cut.shape[:2], side, step, side, step).mean(axis=(3, 5))
        blocks.append(cut.reshape(len(cut), -1))
    return np.concatenate(blocks)
