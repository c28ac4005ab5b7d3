"""What people read about a foreign table: sentences, and the reasons and flags of its own."""

from collections.abc import Sequence

from transferlab.analysis.foreign.options import Options
from transferlab.analysis.formats import count, decimals_for, interval, listing, points
from transferlab.analysis.terms import FLAGS, REASONS, WORDS
from transferlab.analysis.words import metric_words, strategy_words
from transferlab.records import Record

PLENTY_OF_ITEMS = 2000
"""Test items from which on a verdict on scores alone may ignore the chance that they bring."""

OWN_REASONS = {
    "no_scratch_arm": "the table has no row of strategy scratch for this target",
    "different_test_items": "the two arms were scored on different test items",
    "missing_runs": "fewer than 80 % of the seeds that either arm has are complete in both",
    "degenerate": "every seed gave the same difference, so the seeds do nothing or the scores are "
    "rounded, and the interval would be a false certainty",
    "unstable_arm": "one arm's runs fail much more often than the other's, so the mean of those "
    "that are left says little",
    "identical_predictions": "both arms have the same score on every test item",
    "few_test_items": f"the chance of fewer than {PLENTY_OF_ITEMS:,} test items counts and "
    "can't be seen in scores alone; add a column items with the answers",
    "unknown_test_items": "the chance of the test items can't be seen in scores alone, and the "
    "table doesn't say how many there are; add a column items with the answers, or n_items",
}

OWN_FLAGS = {
    "conditional_on_test_set": "conditional on this test set: the interval counts the chance of "
    "seeds alone, not that of other test items",
    "diverged_runs": "some runs failed; their pairs are left out of the interval",
    "missing_pairs": "some seeds are there for one of the two arms only",
    "equal_chances_assumed": "whether both arms were tuned and trained alike is taken on trust: a "
    "table can't show it",
    "failures_not_imputed": "counting failed runs at chance level might change the verdict, and "
    "can't be tried: the table has no number of classes",
    "items_incomplete": "some runs have no answers item by item, so those that there are could "
    "not be used",
    "unstable_arm": "one arm's runs failed much more often than the other's",
}


def reason_words(reason: str) -> str:
    """A reason explained for somebody whose runs were made elsewhere."""
    return {**REASONS, **OWN_REASONS}.get(reason, reason.replace("_", " "))


def flag_words(flag: str) -> str:
    """A flag explained likewise."""
    return {**FLAGS, **OWN_FLAGS}.get(flag, flag.replace("_", " "))


def arm_words(source: str, strategy: str) -> str:
    """An arm inside a sentence: ``fine-tuning from glyphs``."""
    origin = "random weights" if source == "none" else source
    return f"{strategy_words(strategy)} from {origin}"


def sentence(record: Record, options: Options) -> str:
    """The verdict on one arm of one target as one or two plain sentences."""
    arm = arm_words(record["source"], record["strategy"])
    capital = arm[0].upper() + arm[1:]
    because = (record["reason_words"] or "") + _failures(record)
    if record["verdict"] == "not_assessable":
        return f"{capital} on {record['target']} can't be judged: {because}."
    if record["delta"] is None:
        return f"{capital} on {record['target']}: undecided, because {because}."
    held = record["withheld"]
    word = WORDS[record["verdict"]] + _because(record, options, because)
    word += f" (it would have read: {WORDS[held]})" if held else ""
    scope = "" if record["by_items"] else ", conditional on this test set"
    pairs = count(record["n_pairs"], "paired run")
    text = f"With {pairs}, {arm} {_effect(record, options)}{scope}: {word}."
    return text + _worst(record, options) + _what_next(record)


def across_sentence(record: Record, options: Options) -> str:
    """One arm over all its targets, in a sentence."""
    arm = arm_words(record["source"], record["strategy"])
    n = record["n_targets"]
    text = f"{arm[0].upper()}{arm[1:]} is worse than scratch on {record['worse']} of "
    text += f"{count(n, 'target')}"
    middle = points(record["iqm"], unit=options.unit)
    text += f"; the middle half gains {middle}" if n > 1 else ""
    if record["iqm_ci95"]:
        text += f" (95 % interval {interval(*record['iqm_ci95'], unit=options.unit)})"
    if record["left_out"]:
        text += f". Without {listing(record['left_out'])}: no complete pair"
    return text + "."


def across_summary(across: Sequence[Record]) -> str:
    """What the targets say together, as a sentence; empty where nothing is tested."""
    tested = [record for record in across if record["tested"]]
    if not tested:
        return ""
    ends = {"positive": "helps in", "negative": "hurts in"}
    numbers = {kind: sum(record["verdict"] == kind for record in tested) for kind in ends}
    parts = [f"{ends[kind]} {number}" for kind, number in numbers.items() if number]
    ways = count(len(tested), "way", "ways")
    return f"On average over targets, it {listing(parts) or 'is undecided in all'} of {ways}."


def _effect(record: Record, options: Options) -> str:
    """The middle of the sentence: ``raises test accuracy on digits by 6.0 points (...)``."""
    unit, delta, ci95 = options.unit, record["delta"], record["ci95"]
    metric = f"test {metric_words(options.metric)} on {record['target']}"
    noun = f" {unit.noun}" if unit.noun else ""
    values = [options.sign * value for value in (delta, *(ci95 or ()))]
    decimals = decimals_for(values, unit)
    verbs = ("improves", "worsens") if options.lower_is_better else ("raises", "lowers")
    verb = {"positive": verbs[0], "negative": verbs[1]}.get(record["verdict"])
    if verb:
        # A loss of 2.1 points reads "lowers ... by 2.1 (0.9 to 3.4)": the verb carries the sign.
        values = [-value if delta * options.sign < 0 else value for value in values]
    texts = [
        points(value, signed=not verb, decimals=decimals, unit=unit)
        for value in (values[0], *sorted(values[1:]))
    ]
    around = f" (95 % interval {texts[1]} to {texts[2]})" if ci95 else ""
    return f"{verb or 'changes'} {metric} by {texts[0]}{noun}{around}"


def _because(record: Record, options: Options, because: str) -> str:
    margin = options.margin_words
    if record["reason"]:
        return f", because {because}"
    if record["verdict"] == "equivalent":
        return f" (smaller than the margin of {margin})"
    if record["verdict"] != "inconclusive":
        return ""
    low, high = record["ci95_family"] or (0.0, 0.0)
    plain = record["ci95"] or (0.0, 0.0)
    beside = not plain[0] <= 0 <= plain[1]
    corrected = " once the target's other comparisons are allowed for" if beside else ""
    if low <= 0 <= high:
        return f", because the interval still holds zero{corrected} and reaches beyond {margin}"
    return f", because the evidence is not enough{corrected}"


def _worst(record: Record, options: Options) -> str:
    if not record["ci95_worst"]:
        return ""
    low, high = sorted(options.sign * bound for bound in record["ci95_worst"])
    shown = interval(low, high, unit=options.unit)
    return (
        f" The chance of {record['n_items']:,} test items could widen the interval to {shown} at "
        "most."
    )


def _what_next(record: Record) -> str:
    """What would settle an undecided comparison, where the numbers can foresee it."""
    needed = record["seeds_needed"]
    if record["verdict"] != "inconclusive" or record["reason"] or not needed:
        return ""
    if not record["by_items"] and (record["n_items"] or 0) < PLENTY_OF_ITEMS:
        return ""  # more seeds would not give a verdict either
    if needed["state"] == "more_seeds" and needed["next"] <= 1000:
        return f" About {needed['next']:,} seeds in all would settle it if these figures hold."
    if needed["state"] == "more_test_items" and needed["test_items_needed"]:
        items = int(float(f"{needed['test_items_needed']:.2g}"))  # a forecast, not a count
        return f" More seeds can't settle it: about {items:,} test items would be needed."
    return ""


def _failures(record: Record) -> str:
    failed = record["failures"]
    parts = [
        f"{failed[side]['diverged']} of {failed[side]['planned']} {side} runs failed"
        for side in ("transfer", "scratch")
        if failed[side]["diverged"]
    ]
    return f" ({listing(parts)})" if parts else ""
