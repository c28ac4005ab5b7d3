"""From what a contest's numbers say to the final word: preconditions, reasons and flags."""

from dataclasses import dataclass

from transferlab.analysis.arms import Arm
from transferlab.analysis.pairs import Pairs
from transferlab.analysis.words import reason_words
from transferlab.records import Record
from transferlab.stats.crossed import Comparison
from transferlab.stats.verdict import PLENTY, Verdict

FORBIDDEN = {
    "unstable_arm": ("positive", "negative", "equivalent"),
    "untuned": ("positive", "negative"),
    "few_tuning_seeds": ("positive", "negative"),
    "rate_at_edge": (),
}
"""Reasons under which a comparison is measured, and the words they forbid whoever they are about.

A rate at the end of its grid forbids what a better rate of that side could overturn: see
`_beyond_edge`.
"""
TUNING_SEEDS = 3
"""Seeds that shared settings are tuned on, at the least."""


@dataclass(frozen=True)
class Contest:
    """One arm against another: either measured, or the reason why not.

    Attributes:
        arm: whose gain is asked for.
        scratch: the arm it is compared with.
        obstacle: why the two may not be compared.
        pairs: their replicates.
        found: the paired difference.
        question: what the family asks.
    """

    arm: Arm
    scratch: Arm | None
    obstacle: str | None
    pairs: Pairs | None
    found: Comparison | None
    question: str = "strategy"


def outcome(
    contest: Contest, verdict: Verdict | None, imputed: Record | None, *, tuned: bool
) -> Record:
    """The final word: what the numbers say, unless a precondition or a reason forbids it."""
    pairs, withheld = contest.pairs, None
    word = str(verdict.verdict) if verdict else "inconclusive"
    reason = (verdict.reason or None) if verdict else None
    if pairs is None:
        word, reason = "not_assessable", contest.obstacle
    elif not pairs.seeds or not pairs.enough():
        word, reason = "inconclusive", "unstable_arm" if pairs.unstable() else "missing_runs"
    else:
        forbidding = _forbidding(contest, word, tuned=tuned)
        if forbidding:
            word, reason, withheld = "inconclusive", forbidding, word
    return {
        "verdict": word,
        "withheld": withheld,
        "reason": reason,
        "reason_words": reason_words(reason) if reason else None,
        "flags": _flags(contest, verdict, imputed, tuned=tuned),
    }


BEYOND_SEEDS = (*FORBIDDEN, "scope_not_estimable", "single_item")
"""Reasons for an open verdict that more seeds don't remove."""


def undecided(record: Record) -> bool:
    """Whether more seeds could still decide a comparison.

    They can't where its test set or its pool is too small, or where a reason stands against it.
    """
    if record["verdict"] != "inconclusive" or record["reason"] in BEYOND_SEEDS:
        return False
    needed = record["seeds_needed"]
    return not needed or needed["state"] not in ("more_test_items", "more_target_data")


def _forbidding(contest: Contest, word: str, *, tuned: bool) -> str | None:
    """The first reason that forbids the word which the numbers give."""
    holds = {
        "unstable_arm": contest.pairs is not None and contest.pairs.unstable(),
        "untuned": not tuned,
        "few_tuning_seeds": tuned and _few_tuning_seeds(contest),
    }
    for reason, words in FORBIDDEN.items():
        if holds.get(reason) and word in words:
            return reason
    return "rate_at_edge" if word in _beyond_edge(contest) else None


def _beyond_edge(contest: Contest) -> set[str]:
    """Words that a better rate, beyond the end of a side's grid, could overturn.

    A better rate only raises the score of the side that it belongs to: a gain that was found with
    scratch at its best rate stands whatever the arm's own grid would still have held, and so does
    a loss found with the arm at its best. Equivalence stands on neither.
    """
    forbidden: set[str] = set()
    if _edge_of(contest.arm):
        forbidden |= {"negative", "equivalent"}
    if _edge_of(contest.scratch):
        forbidden |= {"positive", "equivalent"}
    return forbidden


def _sides(contest: Contest) -> list[Arm]:
    return [side for side in (contest.arm, contest.scratch) if side]


def _at_edge(contest: Contest) -> bool:
    return any(_edge_of(side) for side in _sides(contest))


def _edge_of(side: Arm | None) -> bool:
    return side is not None and bool(side.tuning.get("rate_at_edge"))


def _few_tuning_seeds(contest: Contest) -> bool:
    """Whether one set of settings serves all replicates and was chosen on too few seeds.

    Its luck is then in every replicate alike, and no interval over replicates can see it.
    """
    return any(
        side.trials > 1
        and side.tuning.get("per", "study") == "study"
        and len(side.tuning.get("seeds", [])) < TUNING_SEEDS
        for side in _sides(contest)
    )


def _same_validation(contest: Contest) -> bool:
    """Whether replicates were tuned each by itself, but on the same validation images."""
    return any(
        side.tuning.get("per") == "replicate"
        and len(side.runs) > 1
        and len({str(run.get("split_sha256")) for run in side.runs.values()}) == 1
        for side in _sides(contest)
    )


def _flags(
    contest: Contest, verdict: Verdict | None, imputed: Record | None, *, tuned: bool
) -> list[str]:
    """The maths' own flags, then what the records show."""
    pairs = contest.pairs
    holds = {
        "few_replicates": pairs is not None and 0 < len(pairs.seeds) < PLENTY,
        "missing_pairs": pairs is not None and len(pairs.seeds) + len(pairs.halves) < pairs.planned,
        "diverged_runs": pairs is not None and bool(pairs.halves),
        "unstable_arm": pairs is not None and pairs.unstable(),
        "sensitive_to_failures": imputed is not None
        and verdict is not None
        and imputed["verdict"] != verdict.verdict,
        "rate_at_edge": _at_edge(contest),
        "validation_shared": _same_validation(contest),
        "budget_at_edge": any(side.tuning.get("budget_at_edge") for side in _sides(contest)),
        "untuned": not tuned,
        "few_tuning_seeds": tuned and _few_tuning_seeds(contest),
        "maybe_within_margin": verdict is not None
        and verdict.verdict in ("positive", "negative")
        and not verdict.beyond_margin,
        "validation_assumed": tuned and _assumed(contest.arm),
        "unequal_batch_size": _differs(contest, "batch_size"),
        "different_head": _differs(contest, "head"),
        "more_trials": contest.scratch is not None
        and contest.arm.trials_in_runs > contest.scratch.trials_in_runs,
        "strategy_chosen": contest.question == "source",
    }
    own = [flag for flag, present in holds.items() if present]
    return list(dict.fromkeys([*(verdict.flags if verdict else ()), *own]))


def _assumed(arm: Arm) -> bool:
    labels = [run.get("validation_labels") or {} for run in arm.runs.values()]
    return any(bool(stated.get("assumption")) for stated in labels)


def _differs(contest: Contest, field: str) -> bool:
    values = {str(run.get(field)) for side in _sides(contest) for run in side.runs.values()}
    return len(values) > 1
