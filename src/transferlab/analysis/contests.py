"""Arms against arms: a family of comparisons is paired, measured, judged and recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transferlab.analysis.arms import Arm, Cell, obstacle
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
from transferlab.analysis.outcomes import Contest, outcome
from transferlab.analysis.pairs import Predictions, pair
from transferlab.analysis.scores import NEED_LOGITS
from transferlab.analysis.subgroups import class_gains, group_gaps
from transferlab.records import Record
from transferlab.stats.verdict import Verdict


@dataclass(frozen=True)
class Ring:
    """Where a family's contests take place.

    Attributes:
        study: whose records these are.
        cell: whose arms meet.
        rule: how they are judged; ``members`` is set for each family.
        planned: seeds of the look that is judged.
        look: the look, as verdict records state it.
        tuned: whether the study tunes.
        predictions: reads test answers.
        early: reads answers on validation early in training.
        test_set: name of the further test set that is judged on; None for the target's own.
    """

    study: Study
    cell: Cell
    rule: Rule
    planned: tuple[int, ...]
    look: Record
    tuned: bool
    predictions: Predictions
    early: Predictions
    test_set: str | None = None


def judge_contests(
    ring: Ring,
    sides: Sequence[tuple[Arm, Arm | None]],
    question: str,
    *,
    members: int | None = None,
) -> list[Record]:
    """Judge one family of comparisons.

    Args:
        ring: where they take place.
        sides: the arm and the one it is compared with, None where that was not declared.
        question: ``strategy``, ``source``, ``part`` or ``contrast``: what the family asks.
        members: declared size of the family; by default the number of sides.

    Returns:
        A verdict record for each, without its sentence, in the same order.
    """
    rule = replace(ring.rule, members=len(sides) if members is None else members)
    contests = [_contest(ring, arm, other, question) for arm, other in sides]
    judged = judge_family([contest.found for contest in contests], rule)
    imputed = _imputed(contests, rule)
    records = []
    for contest, verdict, other in zip(contests, judged, imputed, strict=True):
        record = _identity(ring, contest, rule, question) | {"look": ring.look}
        record |= _evidence(contest, verdict, rule) | {"sensitivity": other}
        record |= outcome(contest, verdict, other, tuned=ring.tuned)
        records.append(record | {"control": None, "blame": None, "early": None})
    return records


def _contest(ring: Ring, arm: Arm, other: Arm | None, question: str) -> Contest:
    # A choice among strategies has more trials by its nature; all else must agree.
    reason = obstacle(
        arm,
        other,
        tuned=ring.tuned and question != "source",
        equal_steps=ring.cell.budget == "equal",
    )
    if reason or other is None:
        return Contest(arm, other, reason, None, None, question)
    pairs = pair(arm, other, ring.planned, ring.predictions)
    if pairs is None:
        return Contest(arm, other, "different_test_items", None, None, question)
    if ring.rule.metric in NEED_LOGITS and not pairs.with_logits:
        return Contest(arm, other, "no_logits", None, None, question)
    found = measure(pairs, ring.rule) if pairs.seeds else None
    return Contest(arm, other, None, pairs, found, question)


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


def _identity(ring: Ring, contest: Contest, rule: Rule, question: str) -> Record:
    """What was compared: the tuple without which a verdict means nothing."""
    cell, arm, other = ring.cell, contest.arm, contest.scratch
    run: Mapping[str, object] = next(iter(arm.runs.values()), {})
    others = [each.declared for each in cell.of_role("transfer") if each is not arm]
    same = [(each["source"], each["strategy"]) for each in others]
    return {
        "question": question,
        "cell": cell.id,
        "cell_extras": extras_of(cell),
        "arm": arm.id,
        "against": other.id if other else None,
        "part": arm.declared.get("part"),
        "alike": (arm.declared["source"], arm.declared["strategy"]) in same,
        "source": arm.declared["source"],
        "source_ids": sorted({str(one.get("source_id")) for one in arm.runs.values()}),
        "target": cell.declared.get("target") or cell.first("target"),
        "strategy": arm.declared["strategy"],
        "backbone": cell.declared.get("backbone") or cell.first("backbone"),
        "head": run.get("head"),
        **cell.size(),
        "budget": _budget(cell, contest),
        "metric": rule.metric,
        "delta_margin": rule.margin,
        "alpha": rule.alpha,
        "scope": rule.scope,
        "test_set": ring.test_set,
        "test": _test(ring),
        "trials": {"transfer": arm.trials, "scratch": other.trials if other else None},
        "hp": {"transfer": arm.settings, "scratch": other.settings if other else None},
        "tuning_seeds": sorted({*arm.tuning.get("seeds", [])}),
        "tuned_per": arm.tuning.get("per", "study") if arm.tuning else None,
        "chosen": arm.declared.get("chosen"),
        "family": {"id": _family(cell, question), "m": rule.members},
        "cost": _cost(arm, other),
    }


def _test(ring: Ring) -> Record:
    """How many test images there were and which; those of a further set are counted when read."""
    if ring.test_set is not None:
        return {"M": None, "ids_sha256": None}
    return {"M": ring.cell.first("n_test"), "ids_sha256": ring.cell.first("test_ids_sha256")}


def _family(cell: Cell, question: str) -> str:
    return cell.id if question == "strategy" else f"{cell.id}: {question}"


def _budget(cell: Cell, contest: Contest) -> Record:
    """The steps of both sides: one number where they are equal, else each side's own best."""
    steps = cell.first("budget_steps")
    if cell.budget == "equal":
        return {"steps": steps, "kind": "equal"}
    own = {
        name: sorted({int(run["budget_steps"]) for run in side.runs.values()}) if side else []
        for name, side in (("transfer", contest.arm), ("scratch", contest.scratch))
    }
    return {"steps": steps, "kind": "own_best", **own}


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
        "per_class": class_gains(pairs, _classes(contest.arm)) if pairs and pairs.seeds else None,
        "groups": group_gaps(pairs) if pairs and pairs.seeds else [],
    }


def _classes(arm: Arm) -> list[str]:
    named = (run.get("classes") for run in arm.runs.values())
    return [str(name) for name in next((names for names in named if names), [])]
