"""What people read: the word for a verdict, its sentence, and every reason and flag explained."""

from collections.abc import Mapping, Sequence
from typing import Any

from transferlab.analysis.formats import count, decimals_for, listing, points, unit_of
from transferlab.analysis.terms import (
    BLAME,
    CONTRAST_WORDS,
    REASONS,
    SOURCE_WORDS,
    STRATEGIES,
    VERBS,
    WORDS,
)
from transferlab.records import Record


def strategy_words(strategy: str) -> str:
    """A strategy's name inside a sentence; a new one reads as its file is named."""
    return STRATEGIES.get(strategy, strategy.replace("_", " "))


def size_words(record: Mapping[str, Any]) -> str:
    """How many target images an arm learned from: ``5 shots a class``."""
    shots, fraction, total = (record.get(key) for key in ("shots", "fraction", "n_target"))
    if shots is not None:
        return count(int(shots), "shot") + " a class"
    if fraction is not None:
        return f"{100 * float(fraction):g} % of the training images"
    return "all training images" if total is None else f"all {int(total):,} training images"


def metric_words(metric: str) -> str:
    """A metric's name in a sentence."""
    named = {"log_loss": "log-loss", "brier": "Brier score", "auroc": "AUROC"}
    return named.get(metric, metric.replace("_", " "))


def scope_words(scope: str) -> str:
    """What a claim is limited to."""
    known = {
        "this_pool": "claim limited to this pool of images",
        "new_target_data": "a claim about new target images drawn like these",
    }
    return known.get(scope, "claim limited to " + scope.replace("_", " "))


def reason_words(reason: str) -> str:
    """A reason explained; an unknown one as it is spelled."""
    return REASONS.get(reason, reason.replace("_", " "))


def sentence(record: Record) -> str:
    """The verdict as one or two plain sentences."""
    if record["verdict"] == "not_assessable":
        return f"{_subject(record, capital=True)} {_where(record)} can't be judged: " + (
            reason_words(record["reason"]) + "."
        )
    if record["delta"] is None:
        return f"{_subject(record, capital=True)} {_where(record)}: undecided, because " + (
            reason_words(record["reason"]) + _failures(record) + "."
        )
    text = (
        f"With {count(record['n_pairs'], 'paired run')} {_budget(record['budget'])}, "
        f"{_subject(record)} {_effect(record)}, {_limits(record)}: "
        f"{word_of(record)}{_because(record)}."
    )
    if record.get("blame"):
        text += " " + record["blame"]["sentence"]
    return text + _what_next(record)


def blame_sentence(culprit: str, source: str, why: str = "") -> str:
    """Who is to blame for a loss, as a sentence."""
    return BLAME[culprit].format(source=source, why=why)


def source_sentence(record: Record) -> str:
    """What a source comes to with the best strategy, to stand behind an arm's own verdict."""
    return SOURCE_WORDS[record["verdict"]].format(source=record["source"])


def word_of(record: Record) -> str:
    """The word for a verdict; ``better`` and ``worse`` where it isn't about scratch."""
    words = CONTRAST_WORDS if record.get("question") in ("contrast", "part") else WORDS
    return words[record["verdict"]]


def summary(verdicts: Sequence[Record]) -> str:
    """How many comparisons ended with which word, as a sentence."""
    if not verdicts:
        return ""
    ends = {
        "positive": "helps in",
        "negative": "hurts in",
        "equivalent": "makes no difference that matters in",
        "inconclusive": "is undecided in",
        "not_assessable": "can't be judged in",
    }
    numbers = {kind: sum(verdict["verdict"] == kind for verdict in verdicts) for kind in ends}
    parts = [f"{ends[kind]} {number}" for kind, number in numbers.items() if number]
    return f"Of {count(len(verdicts), 'comparison')}, transfer {listing(parts)}."


def _budget(budget: Record) -> str:
    if budget["kind"] == "equal":
        return f"at equal steps ({budget['steps']})"
    sides = [listing([str(steps) for steps in budget[side]]) for side in ("transfer", "scratch")]
    return f"at each arm's own best budget ({sides[0]} steps against {sides[1]})"


def _limits(record: Record) -> str:
    """What the claim is limited to: the images, and settings that all replicates share."""
    shared = record.get("tuned_per") == "study"
    return scope_words(record["scope"]) + (" and to these settings" if shared else "")


def _subject(record: Record, *, capital: bool = False) -> str:
    words = strategy_words(record["strategy"])
    text = f"{words} from {record['source']}" + (f" ({record['arm']})" if record["alike"] else "")
    question = record.get("question", "strategy")
    if question == "source":
        text = f"transfer from {record['source']} with the strategy that validation chooses"
    elif question == "part":
        text = f"{words} from {record['source']} with {record['part']} in it, against without,"
    elif question == "contrast":
        text = f"{record['arm']}, against {record['against']},"
    return text[0].upper() + text[1:] if capital else text


def _where(record: Record) -> str:
    extras = [size_words(record), *(f"{k}={v}" for k, v in record["cell_extras"].items())]
    if record.get("test_set"):
        extras.insert(0, f"tested on {record['test_set']}")
    return f"on {record['target']} ({', '.join(extras)})"


def _effect(record: Record) -> str:
    """The middle of the sentence: ``raises test accuracy on digits (...) by 6.0 points (...)``."""
    delta, ci95, unit = record["delta"], record["ci95"], unit_of(record["metric"])
    metric = f"test {metric_words(record['metric'])} {_where(record)}"
    if ci95 is None:
        decimals = decimals_for([delta], unit)
        return f"changes {metric} by {points(delta, decimals=decimals, unit=unit)} {unit.noun}"
    decimals = decimals_for([delta, *ci95], unit)
    one_sided = record["verdict"] in ("positive", "negative")
    # A loss of 2.1 points reads "lowers ... by 2.1 (0.9 to 3.4)": the verb carries the sign.
    sign = -1 if one_sided and delta < 0 else 1
    low, high = sorted(sign * bound for bound in ci95)
    numbers = [
        points(value, signed=not one_sided, decimals=decimals, unit=unit)
        for value in (sign * delta, low, high)
    ]
    verb = VERBS.get(record["metric"], {}).get(record["verdict"], "changes")
    spread = f"(95 % interval {numbers[1]} to {numbers[2]})"
    return f"{verb} {metric} by {numbers[0]} {unit.noun} {spread}"


def _because(record: Record) -> str:
    unit = unit_of(record["metric"])
    margin = f"{unit.scale * record['delta_margin']:g}"
    near = "1 point" if (margin, unit.noun) == ("1", "points") else f"{margin} {unit.noun}"
    if record["verdict"] == "equivalent":
        if record["reason"] == "identical_predictions":
            return ", because " + reason_words(record["reason"])
        return f" (smaller than the margin of {near})"
    if record["verdict"] != "inconclusive":
        return ""
    if record["reason"]:
        text = ", because " + reason_words(record["reason"]) + _failures(record)
        held = record["withheld"]
        return text + (f" (it would have read: {WORDS[held]})" if held else "")
    plain = record["ci95"] or (0.0, 0.0)
    low, high = record["ci95_family"] or plain
    beside = not plain[0] <= 0 <= plain[1]
    corrected = " once the study's other comparisons are allowed for" if beside else ""
    if low <= 0 <= high:
        return f", because the interval still holds zero{corrected} and reaches beyond {near}"
    return f", because the evidence is not enough{corrected}"


def _what_next(record: Record) -> str:
    """What would settle an undecided comparison, where the numbers can foresee it."""
    needed = record["seeds_needed"]
    if record["verdict"] != "inconclusive" or record["reason"] or not needed:
        return ""
    if needed["state"] == "more_seeds" and needed["next"] <= 1000:
        return f" About {needed['next']:,} seeds in all would settle it if these figures hold."
    if needed["state"] == "more_test_items" and needed["test_items_needed"]:
        items = int(float(f"{needed['test_items_needed']:.2g}"))  # a forecast, not a count
        return f" More seeds can't settle it: about {items:,} test images would be needed."
    if needed["state"] == "more_target_data":
        return (
            " More seeds can't settle it: their target images overlap too much; a larger pool to "
            "draw from would be needed."
        )
    return ""


def _failures(record: Record) -> str:
    failed = record["failures"]
    parts = [
        f"{failed[arm]['diverged']} of {failed[arm]['planned']} {name} runs diverged"
        for arm, name in (("transfer", "transfer"), ("scratch", "scratch"))
        if failed[arm]["diverged"]
    ]
    return f" ({listing(parts)})" if parts else ""
