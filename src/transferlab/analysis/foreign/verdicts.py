"""The verdict record of every arm of a foreign table, and of every arm over all its targets."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from transferlab.analysis.foreign.contests import Contest, contests_of
from transferlab.analysis.foreign.items import ItemFiles
from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.table import ForeignTable
from transferlab.analysis.foreign.words import (
    PLENTY_OF_ITEMS,
    across_sentence,
    reason_words,
    sentence,
)
from transferlab.records import Record, sha256_record
from transferlab.stats.across_targets import FEWEST, judge_across
from transferlab.stats.crossed import half_width
from transferlab.stats.metrics import relative_error_reduction
from transferlab.stats.verdict import PLENTY, Verdict, adjust

SIGNED = ("positive", "negative", "equivalent")

UNMEASURED: Record = {
    **dict.fromkeys(("delta", "ci95", "ci95_family", "ci95_worst", "run_part_A", "test_part_B")),
    **dict.fromkeys(("p_sign", "p_equiv", "p_sign_holm", "p_equiv_holm", "seeds_needed")),
    **dict.fromkeys(("median_delta", "rel_error_reduction")),
    "beyond_margin": False,
    "per_replicate_delta": [],
}


def judge_rows(
    table: ForeignTable, options: Options
) -> tuple[list[Record], list[Record], list[str]]:
    """Judge a table.

    Returns:
        One verdict record for each (source, strategy) pair of each target, one record for each
        pair over its targets, and sentences on what was left unread in the files of items.

    Raises:
        UserError: a file of items is missing, damaged or another run's.
    """
    files = ItemFiles(options)
    contests = [contests_of(table, target, options, files) for target in table.targets()]
    verdicts = [record for family in contests for record in _judge_family(family, options)]
    everything = [contest for family in contests for contest in family]
    notices = []
    if files.unread:
        notices.append(f"Columns of the items' files not read: {', '.join(sorted(files.unread))}.")
    return verdicts, _across(table, everything, options), notices


def _judge_family(family: Sequence[Contest], options: Options) -> list[Record]:
    """All arms of one target, adjusted together; those that can't be measured count as well."""
    present = [contest.found for contest in family if contest.found]
    judged = iter(
        adjust(present, margin=options.margin, alpha=options.alpha, m=len(family))
        if present
        else []
    )
    records = []
    for contest in family:
        verdict = next(judged) if contest.found else None
        record = _identity(contest, options, len(family))
        record |= _numbers(contest, verdict) if verdict else UNMEASURED
        record |= _outcome(contest, verdict)
        record["sentence"] = sentence(record, options)
        record["card_hash"] = sha256_record(record)
        records.append(record)
    return records


def _identity(contest: Contest, options: Options, members: int) -> Record:
    """The fields of a study's verdict record; what a table can't say is null."""
    source, strategy = contest.arm
    nothing = {"transfer": None, "scratch": None}
    return {
        "cell": contest.target,
        "arm": f"{strategy} from {source}",
        "alike": False,
        "source": source,
        "target": contest.target,
        "strategy": strategy,
        **dict.fromkeys(("backbone", "head", "shots", "fraction", "n_target")),
        "budget": {"steps": None, "kind": "unknown"},
        "metric": options.metric,
        "lower_is_better": options.lower_is_better,
        "delta_margin": options.margin,
        "alpha": options.alpha,
        "scope": "seeds_and_test_items" if contest.by_items else "this_test_set",
        "by_items": contest.by_items,
        "trials": nothing,
        "hp": nothing,
        "family": {"id": contest.target, "m": members},
        "look": {"index": 1, "of": 1, "seeds": contest.planned, "alpha": options.alpha},
        "cost": None,
        "control": None,
        "blame": None,
        "sensitivity": None,
        "delta_logloss": None,
        "n_pairs": len(contest.seeds),
        "n_items": contest.n_items,
        "replicate_keys": [{"seed": seed} for seed in contest.seeds],
        "failures": contest.failures,
    }


def _numbers(contest: Contest, verdict: Verdict) -> Record:
    return {
        "delta": verdict.delta,
        "ci95": _bounds(verdict.ci95),
        "ci95_family": _bounds(verdict.ci_family),
        "ci95_worst": _worst(contest, verdict),
        "run_part_A": _known(verdict.run_part),
        "test_part_B": _known(verdict.test_part) if contest.by_items else None,
        "p_sign": _known(verdict.unadjusted.sign),
        "p_equiv": _known(verdict.unadjusted.equiv),
        "p_sign_holm": _known(verdict.p_sign),
        "p_equiv_holm": _known(verdict.p_equiv),
        "beyond_margin": bool(verdict.beyond_margin),
        "per_replicate_delta": list(contest.gains),
        "median_delta": float(np.median(contest.gains)),
        "rel_error_reduction": _error_reduction(contest),
        "seeds_needed": {
            key: _known(value) if isinstance(value, float) else value
            for key, value in asdict(verdict.seeds_needed).items()
        },
    }


def _worst(contest: Contest, verdict: Verdict) -> list[float] | None:
    """The 95 % interval with the largest part that test items can bring."""
    if contest.largest_test_part is None or math.isnan(verdict.run_part):
        return None
    half = half_width(verdict.run_part, contest.largest_test_part, verdict.n_pairs, 0.05)
    return [verdict.delta - half, verdict.delta + half]


def _error_reduction(contest: Contest) -> Record | None:
    if contest.errors is None:
        return None
    found = relative_error_reduction(*(np.clip(side, 0, 1) for side in contest.errors))
    value = _known(found.value)
    return None if value is None else {"value": value, "ci95": _bounds((found.low, found.high))}


def _outcome(contest: Contest, verdict: Verdict | None) -> Record:
    """The final word: what the numbers say, unless a precondition or a reason forbids it."""
    withheld = None
    word = str(verdict.verdict) if verdict else "inconclusive"
    reason = (verdict.reason or None) if verdict else "missing_runs"
    if contest.obstacle:
        word, reason = "not_assessable", contest.obstacle
    elif contest.planned > 1 and not contest.enough():
        word, reason = "inconclusive", "unstable_arm" if contest.unstable() else "missing_runs"
    elif word in SIGNED and not reason:
        reason = _forbidding(contest)
        word, withheld = ("inconclusive", word) if reason else (word, None)
    return {
        "verdict": word,
        "withheld": withheld,
        "reason": reason,
        "reason_words": reason_words(reason) if reason else None,
        "flags": _flags(contest, verdict),
    }


def _forbidding(contest: Contest) -> str | None:
    """Why a verdict that the numbers give is withheld.

    Scores alone hide the part of the variance that test items bring. It makes all three words too
    easy to reach, equivalence no less than a sign.
    """
    if contest.unstable():
        return "unstable_arm"
    if contest.by_items:
        return None
    if contest.n_items is None:
        return "unknown_test_items"
    return "few_test_items" if contest.n_items < PLENTY_OF_ITEMS else None


def _flags(contest: Contest, verdict: Verdict | None) -> list[str]:
    n = len(contest.seeds)
    failed = any(contest.failures[side]["diverged"] for side in ("transfer", "scratch"))
    own = [flag for flag in (verdict.flags if verdict else ()) if flag not in _idle(contest)]
    holds = {
        "few_replicates": 1 < n < PLENTY,
        "conditional_on_test_set": n > 1 and not contest.by_items,
        "missing_pairs": any(contest.failures[side]["missing"] for side in ("transfer", "scratch")),
        "diverged_runs": failed,
        "failures_not_imputed": failed,
        "unstable_arm": contest.unstable(),
        "items_incomplete": contest.some_items,
        "maybe_within_margin": verdict is not None
        and verdict.verdict in ("positive", "negative")
        and not verdict.beyond_margin,
        "equal_chances_assumed": True,
    }
    return list(dict.fromkeys([*own, *(flag for flag, present in holds.items() if present)]))


def _idle(contest: Contest) -> set[str]:
    """Flags of the maths that say nothing here: it was told of no items, or has no interval."""
    idle = {"few_replicates"} if len(contest.seeds) < 2 else set()
    return idle | (set() if contest.n_items else {"margin_below_one_item"})


def _across(table: ForeignTable, contests: Sequence[Contest], options: Options) -> list[Record]:
    """Every arm over its targets; none for a table of a single target."""
    targets = [target for target in table.targets() if table.arms(target)]
    if len(targets) < 2:
        return []
    own = {arm: [each for each in contests if each.arm == arm] for arm in table.arms()}
    gains = {
        arm: {
            each.target: each.found.delta
            for each in several
            if each.found and not each.obstacle and each.seeds
        }
        for arm, several in own.items()
    }
    measured = [arm for arm in own if gains[arm]]
    judged = judge_across(
        [list(gains[arm].values()) for arm in measured], alpha=options.alpha, m=len(own)
    )
    records = []
    for arm, found in zip(measured, judged, strict=True):
        numbers = {
            key: _bounds(value) if isinstance(value, tuple) else _plain(value)
            for key, value in asdict(found).items()
        }
        record = {
            "source": arm[0],
            "strategy": arm[1],
            "arm": f"{arm[1]} from {arm[0]}",
            **numbers,
            "tested": found.n_targets >= FEWEST,
            "gains": gains[arm],
            "left_out": [each.target for each in own[arm] if each.target not in gains[arm]],
            "family_m": len(own),
        }
        records.append(record | {"sentence": across_sentence(record, options)})
    return records


def _plain(value: object) -> object:
    return _known(value) if isinstance(value, float) else value


def _bounds(bounds: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(bounds[0]) else [float(bounds[0]), float(bounds[1])]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
