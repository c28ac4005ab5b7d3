"""w3: what validation says of a comparison after a tenth of its budget. An alarm, no verdict."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import mannwhitneyu, t, ttest_1samp

from transferlab.analysis.arms import Arm
from transferlab.analysis.contests import Ring
from transferlab.analysis.facts import Table
from transferlab.analysis.formats import count, interval, points, unit_of
from transferlab.analysis.load import Study
from transferlab.analysis.measure import measure, part
from transferlab.analysis.pairs import Predictions, pair
from transferlab.analysis.scores import NEED_LOGITS, run_scores
from transferlab.analysis.words import word_of
from transferlab.records import Record

FILE = "early.parquet"
"""A run's answers on validation at the first one after a tenth of its budget."""
SHARE = 0.1
LEVEL = 0.05
"""Of the plain two-sided interval that an alarm goes by: alarms have no family."""
ENOUGH = 20
"""Finished comparisons from which alarms are counted against verdicts."""


def early_answers(study: Study) -> Predictions:
    """Return what reads the runs' answers early in training."""
    return Predictions(study.directory, file=FILE, split="validation")


def early_difference(ring: Ring, arm: Arm, scratch: Arm | None) -> Record | None:
    """The paired difference early in training, over runs x validation images.

    Where every replicate has validation images of its own (``tune.per=replicate``), their
    luck is in the spread over replicates, and the interval is Student's over these.

    Returns:
        ``step`` of the first side to be validated, ``delta``, ``ci95``, ``n_pairs`` and whether
        the alarm ``fires``: the interval lies below 0. None where fewer than two pairs have early
        answers.
    """
    step = None if scratch is None else _step(arm, scratch)
    if scratch is None or step is None or not _looked(ring, arm) or not _looked(ring, scratch):
        return None
    metric = "log_loss" if ring.rule.metric in NEED_LOGITS else ring.rule.metric
    rule = replace(ring.rule, metric=metric, members=1, scope="this_pool")
    pairs = pair(arm, scratch, ring.planned, ring.early)
    if pairs is not None:
        if len(pairs.seeds) < 2:
            return None
        found = part(measure(pairs, rule), rule)
    else:
        gains = _gains(arm, scratch, ring.planned, ring.early, metric)
        if len(gains) < 2:
            return None
        found = _over_replicates(gains)
    bounds = found["ci95"]
    fires = bool(bounds and bounds[1] < 0)
    return {"step": step, "metric": metric, **found, "fires": fires}


def early_table(records: Sequence[Record]) -> Table | None:
    """Every comparison's early difference beside its verdict; None where no run was looked at."""
    told = [record for record in records if record.get("early")]
    if not told:
        return None
    several = len({str(record["cell"]) for record in told}) > 1
    rows = []
    for record in told:
        early = record["early"]
        unit, (low, high) = unit_of(early["metric"]), early["ci95"] or (None, None)
        rows.append(
            [
                *([record["cell"]] if several else []),
                record["arm"],
                "warns" if early["fires"] else "silent",
                word_of(record),
                str(early["step"]),
                points(early["delta"], unit=unit),
                interval(low, high, unit=unit),
                points(record["delta"], unit=unit_of(record["metric"])),
            ]
        )
    head = ["arm", "alarm", "verdict", "at step", "early difference", "95 % interval", "gain"]
    note = (
        "The difference from scratch on validation images, at the first validation after a tenth "
        "of the budget; it warns where its whole interval is below 0. It is an alarm, no verdict. "
        + early_sentence(told)
    )
    return Table(
        [*(["cell"] if several else []), *head], rows, words=4 if several else 3, note=note
    )


def early_sentence(records: Sequence[Record]) -> str:
    """Say how often the alarm met negative verdicts, from 20 finished comparisons on."""
    done = [r for r in records if r.get("early") and r["delta"] is not None]
    if len(done) < ENOUGH:
        return (
            f"{count(len(done), 'finished comparison')}: alarms are counted against verdicts from "
            f"{ENOUGH} on."
        )
    fired = [r for r in done if r["early"]["fires"]]
    bad = [-r["early"]["delta"] for r in done if r["verdict"] == "negative"]
    other = [-r["early"]["delta"] for r in done if r["verdict"] != "negative"]
    told = (
        f"Of {count(len(fired), 'comparison')} that it warned of, "
        f"{_negative(fired)} ended negative; of "
        f"{len(done) - len(fired)} others, {len(bad) - _negative(fired)}"
    )
    if not bad or not other:
        return told + "."
    area = mannwhitneyu(bad, other).statistic / (len(bad) * len(other))
    return f"{told}; AUROC {area:.2f}."


def _negative(records: Sequence[Record]) -> int:
    return sum(record["verdict"] == "negative" for record in records)


def _looked(ring: Ring, side: Arm) -> bool:
    folder = ring.study.directory / "runs"
    return any((folder / str(run["run_id"]) / FILE).is_file() for run in side.done().values())


def _step(arm: Arm, scratch: Arm) -> int | None:
    """The first validation after a tenth of the budget, of the side that comes to it first."""
    steps = []
    for run in (*arm.done().values(), *scratch.done().values()):
        budget = run.get("budget_steps") or 0
        steps += [
            int(point["step"])
            for point in run.get("curve") or []
            if SHARE * budget <= point["step"] < budget
        ][:1]
    return min(steps, default=None)


def _gains(
    arm: Arm, scratch: Arm, planned: Sequence[int], reader: Predictions, metric: str
) -> list[float]:
    gains = []
    for seed in planned:
        runs = [side.done().get(seed) for side in (arm, scratch)]
        answers = [None if run is None else reader.of(run) for run in runs]
        if any(one is None for one in answers):
            continue
        first, second = answers
        if first is not None and second is not None and np.array_equal(first.ids, second.ids):
            gains.append(
                float(run_scores([first], metric)[0]) - float(run_scores([second], metric)[0])
            )
    return gains


def _over_replicates(gains: Sequence[float]) -> Record:
    values = np.asarray(gains)
    n, mean, sd = len(values), float(values.mean()), float(values.std(ddof=1))
    half = float(t.isf(LEVEL / 2, n - 1)) * sd / np.sqrt(n)
    return {
        "delta": mean,
        "ci95": [mean - half, mean + half] if sd > 0 else None,
        "p_sign": float(ttest_1samp(values, 0.0).pvalue) if sd > 0 else None,
        "n_pairs": n,
    }
