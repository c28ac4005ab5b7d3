"""The numbers of one comparison, taken from paired test answers: a shell around the maths."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from transferlab.analysis.load import Answers
from transferlab.analysis.pairs import Pairs
from transferlab.analysis.scores import compare_answers, run_scores
from transferlab.records import Record
from transferlab.stats.crossed import Comparison
from transferlab.stats.decision import p_values
from transferlab.stats.metrics import relative_error_reduction
from transferlab.stats.verdict import Verdict, adjust, interval

Floats = NDArray[np.float64]

ERRORS = ("accuracy", "macro_recall")
"""Metrics whose distance from 1 is a share of errors."""
UNMEASURED: Record = {
    **dict.fromkeys(("delta", "ci95", "ci95_family", "run_part_A", "test_part_B")),
    **dict.fromkeys(("p_sign", "p_equiv", "p_sign_holm", "p_equiv_holm", "seeds_needed")),
    **dict.fromkeys(("median_delta", "rel_error_reduction", "delta_logloss")),
    "beyond_margin": False,
    "per_replicate_delta": [],
}
"""The numbers of a comparison that has none."""


@dataclass(frozen=True)
class Rule:
    """How a family is judged.

    Attributes:
        metric: one of ``scores.METRICS``.
        margin: the largest difference that doesn't matter, in the metric's unit.
        alpha: the level held over the family and over all looks.
        looks: how many looks are planned.
        members: how many comparisons the family declares.
        scope: what the claim is about, ``this_pool`` or ``new_target_data``.
    """

    metric: str
    margin: float
    alpha: float
    looks: int
    members: int
    scope: str = "this_pool"


def measure(pairs: Pairs, rule: Rule) -> Comparison:
    """The paired difference of two arms in the metric that the study declares."""
    return _compare(pairs.transfer, pairs.scratch, pairs, rule)


def measure_imputed(pairs: Pairs, rule: Rule) -> Comparison | None:
    """The same with every diverged run at chance level; None where none diverged."""
    if not pairs.halves:
        return None
    transfer, scratch = zip(*pairs.halves, strict=True)
    return _compare((*pairs.transfer, *transfer), (*pairs.scratch, *scratch), pairs, rule)


def judge_family(comparisons: Sequence[Comparison | None], rule: Rule) -> list[Verdict | None]:
    """Verdicts adjusted over the declared family; the unmeasured count among its members."""
    present = [comparison for comparison in comparisons if comparison is not None]
    verdicts = iter(
        adjust(present, margin=rule.margin, alpha=rule.alpha, m=rule.members, looks=rule.looks)
        if present
        else []
    )
    return [None if comparison is None else next(verdicts) for comparison in comparisons]


def numbers(pairs: Pairs, verdict: Verdict, rule: Rule) -> Record:
    """What a verdict record says in figures."""
    gains = gains_by_replicate(pairs, rule)
    return {
        "delta": verdict.delta,
        "ci95": _bounds(verdict.ci95),
        "ci95_family": _bounds(verdict.ci_family),
        "rho": verdict.rho,
        "run_part_A": _number(verdict.run_part),
        "test_part_B": _number(verdict.test_part),
        "p_sign": _number(verdict.unadjusted.sign),
        "p_equiv": _number(verdict.unadjusted.equiv),
        "p_sign_holm": _number(verdict.p_sign),
        "p_equiv_holm": _number(verdict.p_equiv),
        "beyond_margin": bool(verdict.beyond_margin),
        "per_replicate_delta": gains,
        "median_delta": float(np.median(gains)),
        "rel_error_reduction": _error_reduction(pairs, rule),
        "delta_logloss": _logloss(pairs, rule),
        "seeds_needed": {
            key: _number(value) if isinstance(value, float) else value
            for key, value in asdict(verdict.seeds_needed).items()
        },
    }


def part(comparison: Comparison, rule: Rule) -> Record:
    """A difference that explains a verdict: its plain interval and p, without a family."""
    return {
        "delta": comparison.delta,
        "ci95": _bounds(interval(comparison, 0.05)),
        "p_sign": _number(p_values(comparison, rule.margin).sign),
        "n_pairs": comparison.n_pairs,
    }


def gains_by_replicate(pairs: Pairs, rule: Rule) -> list[float]:
    """(n,) each replicate's gain in the declared metric."""
    gains = run_scores(pairs.transfer, rule.metric) - run_scores(pairs.scratch, rule.metric)
    return [float(gain) for gain in gains]


def _compare(
    transfer: Sequence[Answers | None],
    scratch: Sequence[Answers | None],
    pairs: Pairs,
    rule: Rule,
) -> Comparison:
    return compare_answers(
        transfer,
        scratch,
        rule.metric,
        n_classes=pairs.n_classes,
        clusters=pairs.clusters(),
        rho=pairs.rho if rule.scope == "new_target_data" else 0.0,
    )


def _error_reduction(pairs: Pairs, rule: Rule) -> Record | None:
    """Share of scratch's errors that transfer removes; None where an arm made none."""
    metric = rule.metric if rule.metric in ERRORS else "accuracy"
    sides = (pairs.transfer, pairs.scratch)
    errors = [np.clip(1 - run_scores(side, metric), 0, 1) for side in sides]
    found = relative_error_reduction(errors[0], errors[1])
    value = _number(found.value)
    return None if value is None else {"value": value, "ci95": _bounds((found.low, found.high))}


def _logloss(pairs: Pairs, rule: Rule) -> Record | None:
    """Log-loss of transfer minus that of scratch, in nats: below 0 is better."""
    everything = [one.log_prob for one in (*pairs.transfer, *pairs.scratch)]
    if not all(np.isfinite(values).all() for values in everything):
        return None
    gain = _compare(pairs.transfer, pairs.scratch, pairs, replace(rule, metric="log_loss"))
    low, high = interval(gain, 0.05)
    return {"value": -gain.delta, "ci95": _bounds((-high, -low))}


def _bounds(bounds: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(bounds[0]) else [float(bounds[0]), float(bounds[1])]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
