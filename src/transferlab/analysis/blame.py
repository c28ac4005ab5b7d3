"""Who is to blame when a frozen arm loses: the source, the freezing, or both."""

from collections.abc import Sequence

from transferlab.analysis.arms import Arm, Cell, obstacle
from transferlab.analysis.measure import Rule, measure, part
from transferlab.analysis.pairs import Predictions, pair
from transferlab.analysis.words import blame_sentence, source_sentence
from transferlab.records import Record

Blame = Record | None


def apportion(
    cell: Cell,
    arm: Arm,
    verdict: str,
    planned: Sequence[int],
    predictions: Predictions,
    rule: Rule,
) -> tuple[Record | None, Blame]:
    """Split a frozen arm's gain by its control, and name the culprit of a loss.

    The gain over scratch is the sum of two differences: the arm minus the control (the same
    strategy from random weights) is what the source is worth; the control minus scratch is what
    freezing costs. Each has its own interval, at the plain level: they explain a verdict, they
    are none.

    Returns:
        The two parts, None where the arm names no control; and the blame, None where the verdict
        is not ``negative``.
    """
    name = arm.declared.get("control")
    scratch, control = cell.scratch(), cell.arm(name)
    parts: Record | None = None
    if name is not None and control is not None and scratch is not None and control is not scratch:
        value = _difference(arm, control, planned, predictions, rule)
        cost = _difference(control, scratch, planned, predictions, rule)
        parts = {
            "id": name,
            "rate_at_edge": bool(control.tuning.get("rate_at_edge")),
            "source_value": value if value and cost else None,
            "freezing_cost": cost if value and cost else None,
        }
    if verdict != "negative":
        return parts, None
    source = str(arm.declared["source"])
    if control is not None and control is scratch:
        culprit, why = "source_unfrozen", ""
    else:
        culprit, why = culprit_of(parts, rule.alpha)
    words = blame_sentence(culprit, source, why)
    return parts, {"culprit": culprit.removesuffix("_unfrozen"), "sentence": words}


def with_source(blame: Blame, best: Record | None) -> Blame:
    """Add what the source comes to with the strategy that validation chooses in each replicate.

    Args:
        blame: of an arm that hurts, None for another.
        best: the verdict on the arm's source, None where it has one strategy only: that arm is
            then the best that can be said of it.
    """
    if blame is None or best is None:
        return blame
    words = source_sentence(best)
    return {
        **blame,
        "source_verdict": best["verdict"],
        "sentence": f"{blame['sentence']} {words}",
    }


def culprit_of(parts: Record | None, alpha: float) -> tuple[str, str]:
    """The culprit of a loss, and why there is none to name.

    Args:
        parts: ``source_value`` and ``freezing_cost``, each with ``delta`` and ``p_sign``; None
            without a control.
        alpha: the level at which a part counts as a loss.
    """
    if parts is None:
        return "cannot_tell", "no control trains the same layers from random weights"
    if parts["source_value"] is None:
        return "cannot_tell", "the control's runs are missing or do not match"
    loses = {
        key: parts[key]["delta"] < 0
        and parts[key]["p_sign"] is not None
        and parts[key]["p_sign"] < alpha
        for key in ("source_value", "freezing_cost")
    }
    if all(loses.values()):
        return "both", ""
    if loses["source_value"]:
        return "source", ""
    if loses["freezing_cost"]:
        return "strategy", ""
    return "cannot_tell", "neither part of the loss is clear by itself"


def _difference(
    arm: Arm, other: Arm, planned: Sequence[int], predictions: Predictions, rule: Rule
) -> Record | None:
    # Trials are compared as well: a control with fewer of them would look worse than it is.
    if obstacle(arm, other, tuned=bool(arm.trials or other.trials)):
        return None
    pairs = pair(arm, other, planned, predictions)
    if pairs is None or len(pairs.seeds) < 2 or not pairs.enough():
        return None
    return part(measure(pairs, rule), rule)
