"""What people read: the word for a verdict, its sentence, and every reason and flag explained."""

from collections.abc import Mapping, Sequence
from typing import Any

from transferlab.analysis.formats import count, decimals_for, listing, points
from transferlab.records import Record

WORDS = {
    "positive": "helps",
    "negative": "hurts",
    "equivalent": "no difference that matters",
    "inconclusive": "undecided",
    "not_assessable": "can't be judged",
}

REASONS = {
    "no_scratch_arm": "there is no arm trained from scratch to compare with; declare one",
    "unequal_trials": "the two arms were not tuned with the same number of trials",
    "unequal_steps": "the two arms were not given the same number of optimiser steps",
    "tuning_seeds_overlap": "seeds that were tuned on were replicated on as well, so the luck of "
    "tuning would count as an effect",
    "different_backbone": "the two arms use different backbones",
    "different_data": "the two arms saw different versions of the data",
    "different_test_items": "the runs were scored on different test images",
    "different_split": "the two runs of a pair were trained on different splits",
    "different_preprocessing": "the two arms preprocess images differently",
    "different_image_size": "the two arms see images of different size",
    "different_metric": "the two arms were scored by different metrics",
    "different_classes": "the two arms name or order the classes differently",
    "missing_runs": "fewer than 80 % of the planned pairs are complete; run the study's command "
    "again to add the missing ones",
    "single_replicate": "one pair alone gives no interval; add seeds",
    "single_item": "a class has only one test image, or one group of them, and one alone shows no "
    "spread; use a larger test split",
    "degenerate": "every seed gave the same differences, so the seeds do nothing and the interval "
    "would be a false certainty",
    "identical_predictions": "both arms gave the same answer on every test image",
    "unstable_arm": "one arm's runs diverge much more often than the other's, so the mean of those "
    "that survived says little",
    "rate_at_edge": "an arm's best learning rate lies at the end of its grid, so a better one may "
    "lie beyond it; widen the grid",
    "untuned": "no arm was tuned, so a difference may only be one of learning rates that suit one "
    "arm more; tune the study to get a verdict",
}

FLAGS = {
    "few_replicates": "fewer than 5 pairs: the interval holds, but it is wide and rests on little",
    "rate_at_edge": "an arm's best learning rate lies at the end of its grid",
    "untuned": "learning rates were set, not tuned",
    "detectable_sign": "the difference is real but too small to matter: it lies inside the margin",
    "scope_not_covered": "the study asked for a claim about new images, which this interval "
    "does not cover: it holds for the pool that was drawn from",
    "maybe_within_margin": "the direction is clear, the size is not: it may lie inside the margin",
    "control_at_edge": "the control's best learning rate lies at the end of its grid, so who is to "
    "blame is less sure",
    "unstable_arm": "one arm's runs diverged much more often than the other's",
    "diverged_runs": "some runs diverged; their pairs are left out of the interval",
    "sensitive_to_failures": "counting the diverged runs at chance level would change the verdict",
    "missing_pairs": "some planned pairs are missing",
    "validation_assumed": "the rates were tuned on more validation labels than a target this small "
    "would have in practice",
    "margin_below_test_floor": "the margin is finer than this test set can resolve with any number "
    "of seeds",
    "margin_below_one_item": "the margin is smaller than one test image",
    "equal_run_means": "every pair has the same gain by chance, so their spread was bounded from "
    "below by the noise of the images",
    "unequal_batch_size": "the arms' tuned batch sizes differ, so equal steps saw unequal images",
    "different_head": "the two arms have different heads, which may be part of the difference",
    "more_trials": "the arm's runs chose among more sets of weights on validation than scratch's "
    "did: what that choice gains is part of the difference, and its cost part of the arm's",
    "test_set_limits": "more seeds cannot settle this: the test set is too small",
}

BLAME = {
    "source": "The source is to blame: frozen random weights do better than frozen weights from "
    "{source}, and freezing alone costs nothing that shows.",
    "strategy": "The strategy is to blame, not the source: freezing alone, with random weights, "
    "already costs accuracy, and the weights from {source} do no worse than random ones.",
    "both": "Both are to blame: freezing costs accuracy by itself, and the weights from {source} "
    "are worse than random ones.",
    "source_unfrozen": "The source is to blame: the control trains the same layers from random "
    "weights.",
    "cannot_tell": "Whether the source or the strategy is to blame can't be told: {why}.",
}

STRATEGIES = {
    "fine_tune": "fine-tuning",
    "feature_extraction": "feature extraction",
    "gradual_unfreezing": "gradual unfreezing",
    "layer_decay": "fine-tuning with layer decay",
    "lp_ft": "linear probing then fine-tuning",
    "scratch": "training",
}


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
    return metric.replace("_", " ")


def scope_words(scope: str) -> str:
    """What a claim is limited to."""
    known = {"this_pool": "claim limited to this pool of images"}
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
        f"With {count(record['n_pairs'], 'paired run')} at equal steps "
        f"({record['budget']['steps']}), {_subject(record)} {_effect(record)}, "
        f"{scope_words(record['scope'])}: {WORDS[record['verdict']]}{_because(record)}."
    )
    if record.get("blame"):
        text += " " + record["blame"]["sentence"]
    return text + _what_next(record)


def blame_sentence(culprit: str, source: str, why: str = "") -> str:
    """Who is to blame for a loss, as a sentence."""
    return BLAME[culprit].format(source=source, why=why)


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


def _subject(record: Record, *, capital: bool = False) -> str:
    words = strategy_words(record["strategy"])
    text = f"{words} from {record['source']}" + (f" ({record['arm']})" if record["alike"] else "")
    return text[0].upper() + text[1:] if capital else text


def _where(record: Record) -> str:
    extras = [size_words(record), *(f"{k}={v}" for k, v in record["cell_extras"].items())]
    return f"on {record['target']} ({', '.join(extras)})"


def _effect(record: Record) -> str:
    """The middle of the sentence: ``raises test accuracy on digits (...) by 6.0 points (...)``."""
    delta, ci95 = record["delta"], record["ci95"]
    metric = f"test {metric_words(record['metric'])} {_where(record)}"
    if ci95 is None:
        decimals = decimals_for([delta])
        return f"changes {metric} by {points(delta, decimals=decimals)} points"
    decimals = decimals_for([delta, *ci95])
    one_sided = record["verdict"] in ("positive", "negative")
    # A loss of 2.1 points reads "lowers ... by 2.1 (0.9 to 3.4)": the verb carries the sign.
    sign = -1 if one_sided and delta < 0 else 1
    low, high = sorted(sign * bound for bound in ci95)
    numbers = [
        points(value, signed=not one_sided, decimals=decimals)
        for value in (sign * delta, low, high)
    ]
    verb = {"positive": "raises", "negative": "lowers"}.get(record["verdict"], "changes")
    return f"{verb} {metric} by {numbers[0]} points (95 % interval {numbers[1]} to {numbers[2]})"


def _because(record: Record) -> str:
    margin = f"{100 * record['delta_margin']:g}"
    near = "1 point" if margin == "1" else f"{margin} points"
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
    return ""


def _failures(record: Record) -> str:
    failed = record["failures"]
    parts = [
        f"{failed[arm]['diverged']} of {failed[arm]['planned']} {name} runs diverged"
        for arm, name in (("transfer", "transfer"), ("scratch", "scratch"))
        if failed[arm]["diverged"]
    ]
    return f" ({listing(parts)})" if parts else ""
