"""Nearest neighbours on features, an item at a time left out; and PARC."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from transferlab.transferability.arrays import Codes, Floats, Scorer, encoded, table

BLOCK = 1024
"""Rows of the similarity matrix held at a time."""
TIE = 1e-6
"""Weight of similarity beside a whole vote: it decides ties and nothing else."""

Votes = tuple[NDArray[np.int64], Floats]


def knn_accuracy(
    features: ArrayLike, labels: ArrayLike, k: int, *, groups: ArrayLike | None = None
) -> float:
    """Share of items whose k most similar others, by cosine, vote for their class.

    Every item is left out of its own neighbours; with groups its whole group is. Ties go to the
    class with the larger sum of similarities.

    Args:
        features: (N, D); a row of zeros is similar to none.
        labels: (N,).
        k: neighbours, at least 1; all others where there are fewer.
        groups: (N,) what items belong together (a patient), or None.

    Returns:
        in [0, 1], higher is better. A class of one item is never found.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, one class, one group, or
            k below 1.
    """
    return float(knn_correct_of(features, k, groups)(labels).mean())


def knn_of(features: ArrayLike, k: int, groups: ArrayLike | None = None) -> Scorer:
    """Return :func:`knn_accuracy` of these features, as a function of the labels."""
    correct = knn_correct_of(features, k, groups)
    return lambda labels: float(correct(labels).mean())


def knn_correct_of(
    features: ArrayLike, k: int, groups: ArrayLike | None = None
) -> Callable[[ArrayLike], NDArray[np.bool_]]:
    """Return a function of the labels: (N,) whether an item's neighbours vote for its class.

    Args:
        features: (N, D).
        k: neighbours.
        groups: (N,) or None.
    """
    x = table(features)
    if k < 1:
        raise ValueError(f"k={k}: expected at least 1 neighbour.")
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    bound = np.arange(len(x)) if groups is None else encoded(groups, len(x), "groups")
    blocks = [_nearest(unit, bound, start, k) for start in range(0, len(x), BLOCK)]
    rows = np.concatenate([found for found, _ in blocks])
    weights = np.concatenate([found for _, found in blocks])
    items = np.repeat(np.arange(len(x)), rows.shape[1])

    def correct(labels: ArrayLike) -> NDArray[np.bool_]:
        codes = encoded(labels, len(x))
        votes = np.zeros((len(x), codes.max() + 1))
        np.add.at(votes, (items, codes[rows].ravel()), weights.ravel())
        return np.asarray((votes.argmax(axis=1) == codes) & (votes.max(axis=1) > 0))

    return correct


def parc(features: ArrayLike, labels: ArrayLike) -> float:
    """Spearman correlation of the items' distances in features and in one-hot labels.

    A distance is 1 minus Pearson's correlation of two rows. Time and memory grow with N squared.

    Source: Bolya, Mittapalli, Hoffman, NeurIPS 2021 (arXiv:2111.06977).

    Args:
        features: (N, D) with D of at least 2; a constant row is correlated with none.
        labels: (N,).

    Returns:
        in [-1, 1], higher is better; NaN where all pairs are equally far.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    return parc_of(features)(labels)


def parc_of(features: ArrayLike) -> Scorer:
    """Return :func:`parc` of these features, as a function of the labels."""
    x = table(features)
    if x.shape[1] < 2:
        raise ValueError(f"features has shape {x.shape}: rows of one number have no correlation.")
    centred = x - x.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(x), where=lengths > 0)
    first, second = np.triu_indices(len(x), k=1)
    ranks = rankdata(-(unit @ unit.T)[first, second])
    ranks -= ranks.mean()
    spread = float(np.sqrt((ranks**2).sum()))

    def score(labels: ArrayLike) -> float:
        codes = encoded(labels, len(x))
        # one-hot rows are at one of two distances, whose ranks are linear in "differs"
        differs = (codes[first] != codes[second]).astype(np.float64)
        differs -= differs.mean()
        scale = spread * float(np.sqrt((differs**2).sum()))
        return float(ranks @ differs) / scale if scale > 0 else float("nan")

    return score


def _nearest(unit: Floats, bound: Codes, start: int, k: int) -> Votes:
    """Return the rows and weights of the neighbours of a block of items."""
    similar = unit[start : start + BLOCK] @ unit.T
    similar[bound[start : start + BLOCK, None] == bound[None]] = -np.inf
    count = min(k, len(unit) - 1)
    rows = np.argpartition(-similar, count - 1, axis=1)[:, :count]
    found = np.take_along_axis(similar, rows, axis=1)
    return rows, np.where(np.isfinite(found), 1 + TIE * found, 0.0)
