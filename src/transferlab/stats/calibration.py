"""Whether probabilities mean what they say, and the one number that mends them."""

from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from transferlab.stats.metrics import Floats, item_log_loss, log_loss

COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures that are tried."""


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it does to the items it was fitted to.

    Attributes:
        value: T; logits are divided by it. Above 1 the model was overconfident.
        nll_before: mean negative log-likelihood in nats, at T = 1.
        nll_after: the same at T; never more.
        ece_before: expected calibration error at T = 1.
        ece_after: the same at T; mostly less, which nothing guarantees.
        at_edge: whether T is the coldest or hottest that was tried, as on items all of which the
            model gets right, where no temperature is cold enough.
    """

    value: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    at_edge: bool


def expected_calibration_error(log_probs: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence.

    The sum over bins of n_b / M |acc_b - conf_b|. It is above 0 by chance even where the
    probabilities are right, about .03 at M = 2000, and the more the fewer the items; compare
    arms on the same items.

    Args:
        log_probs: (M, C) log probabilities, rows normalised.
        labels: (M,) true classes in [0, C).
        bins: bins of [0, 1], each holding its lower end; the last also holds 1.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: shapes, labels or probabilities are not as above, or bins is below 1.

    Source: Naeini, Cooper, Hauskrecht, AAAI 2015; Guo, Pleiss, Sun, Weinberger, ICML 2017.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}. Use 1 or more, 15 by default.")
    item_log_loss(log_probs, labels)  # refuses what is no table of probabilities
    table, true = np.asarray(log_probs, dtype=np.float64), np.asarray(labels)
    confidence: Floats = np.minimum(np.exp(table.max(axis=1)), 1.0)
    right = table.argmax(axis=1) == true
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    apart = np.bincount(np.digitize(confidence, edges), weights=right - confidence)
    return float(np.abs(apart).sum()) / len(true)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """Find the temperature that makes held-out labels most likely.

    The likelihood has one peak in 1 / T, so a bounded search over ln T from .01 to 100 finds it.
    Where it does not improve on T = 1, T is 1: the likelihood of these items never falls. Fit it
    on validation items, judge it on test items.

    Args:
        logits: (M, C) finite scores before softmax; log probabilities do as well.
        labels: (M,) true classes in [0, C).

    Returns:
        The temperature, with likelihood and calibration error before and after.

    Raises:
        ValueError: shapes or labels are not as above, or a logit is not finite.

    Source: Guo, Pleiss, Sun, Weinberger, ICML 2017.
    """
    table, true = _logits(logits), np.asarray(labels)
    log_loss(log_softmax(table, axis=1), true)  # refuses labels that are none
    below = scaled(table, 1.0)
    own = below[np.arange(len(true)), true]

    def loss(temperature: float) -> float:
        sums = np.exp(below / temperature).sum(axis=1)
        return float((np.log(sums) - own / temperature).mean())

    before = loss(1.0)

    found = minimize_scalar(
        lambda log_temperature: loss(exp(log_temperature)),
        bounds=(log(COLDEST), log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    # The search stops short of its bounds, and anywhere on a stretch that rounding made flat.
    value = min((COLDEST, HOTTEST, exp(float(found.x))), key=loss)
    after = loss(value)
    if after >= before:
        value, after = 1.0, before
    ece = [
        expected_calibration_error(log_softmax(scaled(table, T), axis=1), true)
        for T in (1.0, value)
    ]
    return Temperature(value, before, after, ece[0], ece[1], value in (COLDEST, HOTTEST))


def held_out_calibration(
    validation: tuple[ArrayLike, ArrayLike], test: tuple[ArrayLike, ArrayLike]
) -> dict[str, float]:
    """Judge on test items the temperature that was fitted on validation items.

    Args:
        validation: (n, C) finite logits and (n,) classes.
        test: (M, C) finite logits and (M,) classes.

    Returns:
        ``temperature``; ``ece`` and ``log_loss`` of test at T = 1, and ``ece_scaled`` and
        ``log_loss_scaled`` at that temperature.

    Raises:
        ValueError: shapes or labels are not as above, or a logit is not finite.
    """
    temperature = fit_temperature(*validation).value
    logits, labels = test
    plain, cooled = (log_softmax(scaled(logits, T), axis=1) for T in (1.0, temperature))
    return {
        "temperature": temperature,
        "ece": expected_calibration_error(plain, labels),
        "log_loss": log_loss(plain, labels),
        "ece_scaled": expected_calibration_error(cooled, labels),
        "log_loss_scaled": log_loss(cooled, labels),
    }


def scaled(logits: ArrayLike, temperature: float) -> Floats:
    """Return (M, C) logits divided by a temperature, less each row's largest: that is 0.

    Every row's largest logit stays its largest, also where another is so near that plain division
    would round the two to one number.

    Args:
        logits: (M, C) finite.
        temperature: above 0; above 1 softens, below 1 sharpens.

    Raises:
        ValueError: shapes or numbers are not as above.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} is none. Use a number above 0.")
    table = _logits(logits)
    divided: Floats = (table - table.max(axis=1, keepdims=True)) / temperature
    return divided


def _logits(values: ArrayLike) -> Floats:
    table: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(
            f"logits have shape {table.shape}, or hold a number that is not finite. Pass finite "
            "scores of shape (items, classes)."
        )
    return table
