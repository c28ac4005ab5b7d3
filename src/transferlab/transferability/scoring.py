"""All scores that apply to one set of features, each with its place among shuffled labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from transferlab.transferability.arrays import Codes, Floats, Scorer, encoded, table
from transferlab.transferability.h_score import h_score_of, regularized_h_score_of
from transferlab.transferability.leep import leep_of, n_leep_of, nce
from transferlab.transferability.logme import logme_of
from transferlab.transferability.neighbours import knn_of, parc_of
from transferlab.transferability.permutation import permutation_z
from transferlab.transferability.separation import gbc_of, transrate_of

NEIGHBOURS = (1, 5, 20)
ITEMS_A_CLASS = 10
"""Of N-LEEP, whose mixture has five components a class: with fewer each holds an item or two."""
SCORES = (
    *(f"knn_{k}" for k in NEIGHBOURS), "logme", "regularized_h_score", "h_score", "leep", "nce",
    "n_leep", "gbc", "parc", "transrate",
)  # fmt: skip
"""Every score, in the order of tables. Higher is better in all of them."""


@dataclass(frozen=True)
class Score:
    """One score of one candidate.

    Attributes:
        value: None where the score does not apply.
        z: standard deviations above shuffled labels, None where shuffling changes nothing.
        reason: why there is no value; empty where there is one.
    """

    value: float | None
    z: float | None = None
    reason: str = ""


def score_all(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    source_probs: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> dict[str, Score]:
    """Score features by everything that applies to them.

    Args:
        features: (N, D).
        labels: (N,).
        source_probs: (N, S) probabilities of the source's own classes, or None.
        groups: (N,) what items belong together, or None. Where each is of one class, labels are
            shuffled among groups, else among items.
        shuffles: of the permutation z.
        seed: of the shuffles.

    Returns:
        a score for every name in :data:`SCORES`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or one class.
    """
    x = table(features)
    codes = encoded(labels, len(x))
    scorers, missing = _applicable(x, codes, source_probs, groups)
    units = groups if groups is not None and _pure(codes, groups) else None
    found = {name: Score(None, reason=reason) for name, reason in missing.items()}
    for name, scorer in scorers.items():
        value = scorer(codes)
        z = permutation_z(scorer, codes, groups=units, shuffles=shuffles, seed=seed)
        found[name] = Score(_finite(value), _finite(z), "" if math.isfinite(value) else "undefined")
    return {name: found[name] for name in SCORES}


def _applicable(
    x: Floats, codes: Codes, source_probs: ArrayLike | None, groups: ArrayLike | None
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """Return the scores that say something here, and why the others do not."""
    counts, (items, width) = np.bincount(codes), x.shape
    makers: dict[str, Callable[[], Scorer]] = {
        "logme": lambda: logme_of(x),
        "regularized_h_score": lambda: regularized_h_score_of(x),
        "h_score": lambda: h_score_of(x),
        "gbc": lambda: gbc_of(x),
        "transrate": lambda: transrate_of(x),
        "n_leep": lambda: n_leep_of(x, len(counts)),
        "parc": lambda: parc_of(x),
        **{f"knn_{k}": partial(knn_of, x, k, groups) for k in NEIGHBOURS},
    }
    limits = {
        **{f"knn_{k}": (counts.max() > 1, "one item a class") for k in NEIGHBOURS},
        "h_score": (items > width, f"{items} items with {width} features: the same for all labels"),
        "n_leep": (items >= ITEMS_A_CLASS * len(counts), f"fewer than {ITEMS_A_CLASS} a class"),
        "parc": (width > 1, "one feature"),
    }
    missing = {name: reason for name, (applies, reason) in limits.items() if not applies}
    scorers = {name: make() for name, make in makers.items() if name not in missing}
    if source_probs is None:
        return scorers, missing | dict.fromkeys(("leep", "nce"), "no classifier of the source's")
    guessed = table(source_probs, "source_probs").argmax(axis=1)
    scorers["leep"] = leep_of(source_probs)
    scorers["nce"] = lambda labels: nce(guessed, labels)
    return scorers, missing


def _pure(codes: Codes, groups: ArrayLike) -> bool:
    """Say whether every group is of one class."""
    units = encoded(groups, len(codes), "groups")
    kinds = len(np.unique(units * (codes.max() + 1) + codes))
    return kinds == int(units.max()) + 1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
