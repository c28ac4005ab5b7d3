"""The numbers of one comparison, taken from paired test answers: a shell around the maths."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from transferlab.analysis.pairs import Pairs
from transferlab.records import Record
from transferlab.stats.crossed import Comparison, compare
from transferlab.stats.decision import p_values
from transferlab.stats.metrics import relative_error_reduction
from transferlab.stats.verdict import Verdict, adjust, interval

Floats = NDArray[np.float64]

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
        metric: ``accuracy`` or ``macro_recall``.
        margin: the largest difference that doesn't matter, as a share.
        alpha: the level held over the family and over all looks.
        looks: how many looks are planned.
        members: how many transfer arms the family declares.
    """

    metric: str
    margin: float
    alpha: float
    looks: int
    members: int


def measure(pairs: Pairs, rule: Rule) -> Comparison:
    """The paired difference of two arms in the metric that the study declares."""
    return _compare(*pairs.correct(), pairs, rule)


def measure_imputed(pairs: Pairs, rule: Rule) -> Comparison | None:
    """The same with every diverged run at chance level; None where none diverged."""
    if not pairs.halves:
        return None
    chance = np.full(pairs.n_items, 1 / pairs.n_classes)
    sides = []
    for side, complete in enumerate(pairs.correct()):
        halves = [half[side] for half in pairs.halves]
        rows = [chance if half is None else half.correct for half in halves]
        sides.append(np.vstack([complete.astype(np.float64), *rows]))
    return _compare(sides[0], sides[1], pairs, rule)


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
        "delta_logloss": _logloss(pairs),
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
    transfer, scratch = (_scores(side, pairs, rule) for side in pairs.correct())
    return [float(gain) for gain in transfer - scratch]


def _compare(
    transfer: NDArray[np.generic], scratch: NDArray[np.generic], pairs: Pairs, rule: Rule
) -> Comparison:
    classes = pairs.classes() if rule.metric == "macro_recall" else None
    return compare(transfer, scratch, clusters=pairs.clusters(), classes=classes)


def _scores(correct: NDArray[np.bool_], pairs: Pairs, rule: Rule) -> Floats:
    """(n,) every run's score: items weigh the same, or classes do."""
    weights = np.ones(pairs.n_items)
    if rule.metric == "macro_recall":
        classes = pairs.classes()
        weights = 1 / np.bincount(classes)[classes]
    scores: Floats = correct @ (weights / weights.sum())
    return scores


def _error_reduction(pairs: Pairs, rule: Rule) -> Record | None:
    """Share of scratch's errors that transfer removes; None where an arm made none."""
    errors = [np.clip(1 - _scores(side, pairs, rule), 0, 1) for side in pairs.correct()]
    found = relative_error_reduction(errors[0], errors[1])
    value = _number(found.value)
    return None if value is None else {"value": value, "ci95": _bounds((found.low, found.high))}


def _logloss(pairs: Pairs) -> Record | None:
    """Log-loss of transfer minus that of scratch, in nats: below 0 is better."""
    transfer, scratch = pairs.log_prob()
    if not (np.isfinite(transfer).all() and np.isfinite(scratch).all()):
        return None
    found = compare(-transfer, -scratch, clusters=pairs.clusters())
    return {"value": found.delta, "ci95": _bounds(interval(found, 0.05))}


def _bounds(bounds: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(bounds[0]) else [float(bounds[0]), float(bounds[1])]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
