"""The verdict record of every transfer arm of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferlab.analysis.arms import Arm, Cell, look_of, obstacle
from transferlab.analysis.blame import apportion
from transferlab.analysis.facts import cost_ratio, mean_of
from transferlab.analysis.gains import extras_of
from transferlab.analysis.load import Study
from transferlab.analysis.measure import (
    UNMEASURED,
    Rule,
    judge_family,
    measure,
    measure_imputed,
    numbers,
)
from transferlab.analysis.pairs import Pairs, Predictions, pair
from transferlab.analysis.words import reason_words, sentence
from transferlab.records import Record, sha256_record
from transferlab.stats.crossed import Comparison
from transferlab.stats.verdict import PLENTY, Verdict

FORBIDDEN = {
    "unstable_arm": ("positive", "negative", "equivalent"),
    "untuned": ("positive", "negative"),
    "rate_at_edge": ("positive", "negative"),
}
"""Reasons under which a comparison is measured, and the words they forbid."""


@dataclass(frozen=True)
class Contest:
    """One transfer arm against scratch: either measured, or the reason why not."""

    arm: Arm
    scratch: Arm | None
    obstacle: str | None
    pairs: Pairs | None
    found: Comparison | None


def judge_cells(study: Study, cells: Sequence[Cell]) -> tuple[list[Record], list[str]]:
    """Judge every transfer arm of every cell.

    Returns:
        The verdict records in the order of study.json, and a sentence for each file of
        predictions that could not be read.
    """
    predictions = Predictions(study.directory)
    records = [record for cell in cells for record in _judge_cell(study, cell, predictions)]
    return records, predictions.unreadable


def _judge_cell(study: Study, cell: Cell, predictions: Predictions) -> list[Record]:
    arms = cell.of_role("transfer")
    index, seeds = look_of(cell, study.header)
    looks = len(study.header.get("looks") or [0])
    rule = Rule(
        metric=_metric(study, cell),
        margin=float(study.header["margin"]),
        alpha=float(study.header["alpha"]),
        looks=looks,
        members=len(arms),
    )
    planned = [int(seed) for seed in study.header["seeds"][:seeds]]
    tuned = bool(study.header.get("tuned"))
    contests = [_contest(arm, cell.scratch(), planned, predictions, rule, tuned) for arm in arms]
    judged = judge_family([contest.found for contest in contests], rule)
    imputed = _imputed(contests, rule)
    look = {"index": index + 1, "of": looks, "seeds": seeds, "alpha": rule.alpha / looks}
    records = []
    for contest, verdict, other in zip(contests, judged, imputed, strict=True):
        record = _identity(study, cell, contest, rule) | {"look": look}
        record |= _evidence(contest, verdict, rule) | {"sensitivity": other}
        record |= _outcome(contest, verdict, other, tuned=tuned, scope=record["scope_declared"])
        record["control"], record["blame"] = apportion(
            cell, contest.arm, record["verdict"], planned, predictions, rule
        )
        if record["blame"] and record["control"] and record["control"]["rate_at_edge"]:
            record["flags"].append("control_at_edge")
        record["sentence"] = sentence(record)
        record["card_hash"] = sha256_record(record)
        records.append(record)
    predictions.forget()
    return records


def _imputed(contests: Sequence[Contest], rule: Rule) -> list[Record | None]:
    """The family judged again with diverged runs at chance level, where any diverged."""
    changed = [
        measure_imputed(contest.pairs, rule) if contest.pairs and contest.found else None
        for contest in contests
    ]
    family = [other or contest.found for other, contest in zip(changed, contests, strict=True)]
    judged = judge_family(family, rule)
    return [
        None
        if other is None or verdict is None
        else {
            "n_pairs": verdict.n_pairs,
            "delta": verdict.delta,
            "ci95": list(verdict.ci95),
            "verdict": verdict.verdict,
        }
        for other, verdict in zip(changed, judged, strict=True)
    ]


def _metric(study: Study, cell: Cell) -> str:
    """The metric declared for the cell, else for the study, else what its runs chose."""
    known = ("accuracy", "macro_recall")
    stated = (cell.declared.get("metric"), study.header.get("metric"), cell.first("metric"))
    return next((str(metric) for metric in stated if metric in known), "accuracy")


def _contest(
    arm: Arm,
    scratch: Arm | None,
    planned: Sequence[int],
    predictions: Predictions,
    rule: Rule,
    tuned: bool,
) -> Contest:
    reason = obstacle(arm, scratch, tuned=tuned)
    if reason or scratch is None:
        return Contest(arm, scratch, reason, None, None)
    pairs = pair(arm, scratch, planned, predictions)
    if pairs is None:
        return Contest(arm, scratch, "different_test_items", None, None)
    return Contest(arm, scratch, None, pairs, measure(pairs, rule) if pairs.seeds else None)


def _identity(study: Study, cell: Cell, contest: Contest, rule: Rule) -> Record:
    """What was compared: the tuple without which a verdict means nothing."""
    arm, scratch = contest.arm, contest.scratch
    run: Mapping[str, object] = next(iter(arm.runs.values()), {})
    others = [other.declared for other in cell.of_role("transfer") if other is not arm]
    same = [(other["source"], other["strategy"]) for other in others]
    return {
        "cell": cell.id,
        "cell_extras": extras_of(cell),
        "arm": arm.id,
        "alike": (arm.declared["source"], arm.declared["strategy"]) in same,
        "source": arm.declared["source"],
        "source_ids": sorted({str(one.get("source_id")) for one in arm.runs.values()}),
        "target": cell.declared.get("target") or cell.first("target"),
        "strategy": arm.declared["strategy"],
        "backbone": cell.declared.get("backbone") or cell.first("backbone"),
        "head": run.get("head"),
        **cell.size(),
        "budget": {"steps": cell.first("budget_steps"), "kind": "equal"},
        "metric": rule.metric,
        "delta_margin": rule.margin,
        "alpha": rule.alpha,
        # The interval covers replicates from this pool; a wider claim is flagged, never made.
        "scope": "this_pool",
        "scope_declared": str(study.header.get("scope") or "this_pool"),
        "rho": 0.0,
        "test": {"M": cell.first("n_test"), "ids_sha256": cell.first("test_ids_sha256")},
        "trials": {"transfer": arm.trials, "scratch": scratch.trials if scratch else None},
        "hp": {"transfer": arm.settings, "scratch": scratch.settings if scratch else None},
        "tuning_seeds": sorted({*arm.tuning.get("seeds", [])}),
        "family": {"id": cell.id, "m": rule.members},
        "cost": _cost(arm, scratch),
    }


def _cost(arm: Arm, scratch: Arm | None) -> Record:
    def seconds(run: Record) -> float | None:
        return (run.get("cost") or {}).get("fit_seconds")

    return {
        "fit_seconds": {"transfer": mean_of(arm, seconds), "scratch": mean_of(scratch, seconds)},
        "ratio": cost_ratio(arm, scratch),
    }


def _evidence(contest: Contest, verdict: Verdict | None, rule: Rule) -> Record:
    """The pairs behind a verdict and what they came to."""
    pairs = contest.pairs
    empty = dict.fromkeys(("planned", "done", "diverged", "missing"))
    keys = [
        {"seed": seed, "split_sha256": contest.arm.runs[seed].get("split_sha256")}
        for seed in (pairs.seeds if pairs else ())
    ]
    return {
        "n_pairs": len(keys),
        "n_items": verdict.n_items if verdict else None,  # groups where the target binds images
        "replicate_keys": keys,
        "failures": pairs.failures
        if pairs
        else {"transfer": empty, "scratch": empty, "fisher_p": None},
        **(numbers(pairs, verdict, rule) if pairs and verdict else UNMEASURED),
    }


def _outcome(
    contest: Contest, verdict: Verdict | None, imputed: Record | None, *, tuned: bool, scope: str
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
        forbidding = _forbidding(contest, tuned=tuned)
        if forbidding and word in FORBIDDEN[forbidding]:
            word, reason, withheld = "inconclusive", forbidding, word
    return {
        "verdict": word,
        "withheld": withheld,
        "reason": reason,
        "reason_words": reason_words(reason) if reason else None,
        "flags": _flags(contest, verdict, imputed, tuned=tuned, scope=scope),
    }


def _forbidding(contest: Contest, *, tuned: bool) -> str | None:
    holds = {
        "unstable_arm": contest.pairs is not None and contest.pairs.unstable(),
        "untuned": not tuned,
        "rate_at_edge": _at_edge(contest),
    }
    return next((reason for reason in FORBIDDEN if holds[reason]), None)


def _at_edge(contest: Contest) -> bool:
    sides = (contest.arm, contest.scratch)
    return any(bool(side.tuning.get("rate_at_edge")) for side in sides if side)


def _flags(
    contest: Contest, verdict: Verdict | None, imputed: Record | None, *, tuned: bool, scope: str
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
        "untuned": not tuned,
        "scope_not_covered": scope != "this_pool",
        "maybe_within_margin": verdict is not None
        and verdict.verdict in ("positive", "negative")
        and not verdict.beyond_margin,
        "validation_assumed": tuned and _assumed(contest.arm),
        "unequal_batch_size": _differs(contest, "batch_size"),
        "different_head": _differs(contest, "head"),
        "more_trials": contest.scratch is not None
        and contest.arm.trials_in_runs > contest.scratch.trials_in_runs,
    }
    own = [flag for flag, present in holds.items() if present]
    return list(dict.fromkeys([*(verdict.flags if verdict else ()), *own]))


def _assumed(arm: Arm) -> bool:
    labels = [run.get("validation_labels") or {} for run in arm.runs.values()]
    return any(bool(stated.get("assumption")) for stated in labels)


def _differs(contest: Contest, field: str) -> bool:
    sides = [side for side in (contest.arm, contest.scratch) if side]
    values = {str(run.get(field)) for side in sides for run in side.runs.values()}
    return len(values) > 1
