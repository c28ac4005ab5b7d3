"""Early warnings of negative transfer, from features of the target's training images alone.

Both were tried on one toy target and six sources: they are alarms to be counted against verdicts,
no verdicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferlab.transferability.arrays import Codes, Floats, encoded

Z_LEVEL = 2.0
"""A z below this is no sign that the features know the classes; shuffled labels reach it in 3 %."""
FEW = 10
"""Items of the smallest class below which one neighbour votes, and five from there on."""


@dataclass(frozen=True)
class Alarm:
    """One early warning.

    Attributes:
        fires: None where it can't be said.
        value: what is compared with the level.
        se: standard error of the value over items, or None.
        against: the strongest of what the source is compared with, or "".
        why: what was found, in words.
    """

    fires: bool | None
    value: float | None
    se: float | None
    against: str
    why: str


def neighbours_for(labels: ArrayLike) -> int:
    """Return how many neighbours vote in the alarm: 1 where a class has few items, else 5."""
    given = np.asarray(labels)
    return 1 if np.unique(given, return_counts=True)[1].min() < FEW else 5


def share(correct: ArrayLike, labels: ArrayLike, balanced: bool = False) -> float:
    """Return the share of items that are right, or its mean over classes.

    Args:
        correct: (N,) booleans.
        labels: (N,) true classes.
        balanced: mean over classes (macro recall) instead of over items (accuracy).
    """
    codes = encoded(labels, np.size(np.asarray(correct)), classes=1)
    return float(_by_stratum(np.asarray(correct, np.float64), codes, balanced)[0].mean())


def reads_no_better(
    source: NDArray[np.bool_],
    baselines: Mapping[str, NDArray[np.bool_]],
    labels: ArrayLike,
    balanced: bool = False,
) -> Alarm:
    """w1: nearest neighbours on the source's features against those that need no source.

    It fires where the source is no better than the best of the baselines.

    Args:
        source: (N,) whether each training item is found by its neighbours, itself left out.
        baselines: the same of a random network, of raw pixels.
        labels: (N,) true classes.
        balanced: compare means over classes instead of accuracies.

    Raises:
        ValueError: no baseline, or shapes that do not fit.
    """
    if not baselines:
        raise ValueError("baselines is empty: pass raw pixels or a random network at the least.")
    codes = encoded(labels, len(source))
    scores = {name: share(found, codes, balanced) for name, found in baselines.items()}
    best = max(scores, key=lambda name: scores[name])
    own = share(source, codes, balanced)
    if np.bincount(codes).max() < 2:
        return Alarm(None, None, None, best, "one item a class: neighbours cannot be of one class")
    apart = source.astype(np.float64) - baselines[best]
    means, variances = _by_stratum(apart, codes, balanced)
    margin, se = float(means.mean()), float(np.sqrt(variances.sum()) / len(means))
    fires = bool(margin <= 1e-12)
    verb = "read the target no better than those" if fires else "read the target better than those"
    told = f"{100 * own:.1f} % against {100 * scores[best]:.1f} %"
    why = f"neighbours on its features {verb} on {best.replace('_', ' ')}: {told}"
    return Alarm(fires, margin, se, best, why)


def knows_no_labels(logme_z: float | None, h_score_z: float | None) -> Alarm:
    """w2: LogME and the regularised H-score against shuffled labels.

    It fires where either lies less than two standard deviations above them.

    Args:
        logme_z: permutation z of LogME, or None where it is undefined.
        h_score_z: that of the regularised H-score.
    """
    if logme_z is None or h_score_z is None:
        return Alarm(None, None, None, "shuffled labels", "no spread under shuffled labels")
    lowest = min(logme_z, h_score_z)
    fires = lowest < Z_LEVEL
    verb = "hardly differ" if fires else "stand out"
    why = f"LogME and H-score {verb} from shuffled labels: z {logme_z:.1f} and {h_score_z:.1f}"
    return Alarm(fires, lowest, None, "shuffled labels", why)


def _by_stratum(values: Floats, codes: Codes, balanced: bool) -> tuple[Floats, Floats]:
    """Return the strata's means and the squared standard errors of these: classes, or all items."""
    strata = codes if balanced else np.zeros_like(codes)
    counts = np.bincount(strata)
    means = np.bincount(strata, weights=values) / counts
    squares = np.bincount(strata, weights=(values - means[strata]) ** 2)
    return means, squares / np.maximum(counts - 1, 1) / counts
