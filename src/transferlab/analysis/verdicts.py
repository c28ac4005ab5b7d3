"""The families of a study: strategies, sources and parts of sources, each judged as one."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

from transferlab.analysis.arms import Arm, Cell, look_of
from transferlab.analysis.blame import apportion, with_source
from transferlab.analysis.contests import Ring, judge_contests
from transferlab.analysis.copies import each
from transferlab.analysis.early import early_answers, early_difference
from transferlab.analysis.load import Study
from transferlab.analysis.measure import Rule
from transferlab.analysis.pairs import Predictions
from transferlab.analysis.scores import METRICS, NEED_LOGITS
from transferlab.analysis.selection import best_of_sources
from transferlab.analysis.sizes import curves_over_sizes, size_records
from transferlab.analysis.words import sentence
from transferlab.errors import UserError, nearest
from transferlab.records import Record, sha256_record


@dataclass(frozen=True)
class Judged:
    """Verdict records by what they ask.

    Attributes:
        strategies: one for each transfer arm of each cell, against scratch.
        sources: one for each source with several strategies: the best of them on validation.
        parts: one for each part of a composed source: with it against without it.
        elsewhere: one for each transfer arm on each further test set, against scratch.
        sizes: one for each arm over the sizes of a target.
        unreadable: a sentence for each file of predictions that could not be read.
    """

    strategies: list[Record]
    sources: list[Record]
    parts: list[Record]
    elsewhere: list[Record]
    sizes: list[Record]
    unreadable: list[str]


def judge_cells(study: Study, cells: Sequence[Cell]) -> Judged:
    """Judge every declared family of every cell, in the order of study.json."""
    logits = _need_logits(study, cells)
    judged = nothing_judged()
    for own in each(partial(_judge_cell, study, logits), cells):
        for family in fields(Judged):
            getattr(judged, family.name).extend(getattr(own, family.name))
    _label_budgets(cells, judged.strategies)
    judged.sizes.extend(size_records(curves_over_sizes(cells, judged.strategies)))
    return judged


def _judge_cell(study: Study, logits: bool, cell: Cell) -> Judged:
    predictions = Predictions(study.directory, logits=logits)
    ring = _ring(study, cell, predictions)
    best = [(arm, cell.scratch()) for arm in best_of_sources(cell, ring.rule.metric)]
    sources = [_finished(record) for record in judge_contests(ring, best, "source")]
    parts = [
        _finished(record) for of in cell.of_role("transfer") for record in _judge_parts(ring, of)
    ]
    strategies = _judge_strategies(ring, sources)
    predictions.forget()
    elsewhere = _judge_elsewhere(ring)
    return Judged(strategies, sources, parts, elsewhere, [], predictions.unreadable)


def nothing_judged() -> Judged:
    """What a folder without declared families comes to."""
    return Judged([], [], [], [], [], [])


def judge_against(study: Study, cells: Sequence[Cell], baseline: str) -> list[Record]:
    """Judge every other arm of each cell against one arm, as a family of its own.

    Raises:
        UserError: no cell has an arm of that name.
    """
    names = list(dict.fromkeys(arm.id for cell in cells for arm in cell.arms))
    if baseline not in names:
        raise UserError(
            f"--baseline {baseline!r}: no arm of this study ({nearest(baseline, names)})."
        )
    predictions = Predictions(study.directory, logits=_need_logits(study, cells))
    records: list[Record] = []
    for cell in cells:
        other = cell.arm(baseline)
        if other is not None:
            ring = _ring(study, cell, predictions)
            sides = [(arm, other) for arm in cell.arms if arm is not other]
            records += map(_finished, judge_contests(ring, sides, "contrast"))
        predictions.forget()
    return records


def _need_logits(study: Study, cells: Sequence[Cell]) -> bool:
    return any(_metric(study, cell) in NEED_LOGITS for cell in cells)


def _ring(study: Study, cell: Cell, predictions: Predictions) -> Ring:
    index, seeds = look_of(cell, study.header)
    looks = len(study.header.get("looks") or [0])
    rule = Rule(
        metric=_metric(study, cell),
        margin=float(study.header["margin"]),
        alpha=float(study.header["alpha"]),
        looks=looks,
        members=1,
        scope=str(study.header.get("scope") or "this_pool"),
    )
    look = {"index": index + 1, "of": looks, "seeds": seeds, "alpha": rule.alpha / looks}
    planned = tuple(int(seed) for seed in study.header["seeds"][:seeds])
    tuned = bool(study.header.get("tuned"))
    return Ring(study, cell, rule, planned, look, tuned, predictions, early_answers(study))


def _judge_strategies(ring: Ring, sources: Sequence[Record]) -> list[Record]:
    cell, arms = ring.cell, ring.cell.of_role("transfer")
    records = judge_contests(ring, [(arm, cell.scratch()) for arm in arms], "strategy")
    for arm, record in zip(arms, records, strict=True):
        record["control"], record["blame"] = apportion(
            cell, arm, record["verdict"], ring.planned, ring.predictions, ring.rule
        )
        if record["blame"] and record["control"] and record["control"]["rate_at_edge"]:
            record["flags"].append("control_at_edge")
        record["early"] = early_difference(ring, arm, cell.scratch())
        best = [r for r in sources if r["source"] == record["source"]]
        record["blame"] = with_source(record["blame"], best[0] if best else None)
        _finished(record)
    return records


def _judge_parts(ring: Ring, of: Arm) -> list[Record]:
    """What each part of a composed source adds: the whole against the whole without it."""
    without = [arm for arm in ring.cell.of_role("ablation") if arm.declared.get("of") == of.id]
    sides: list[tuple[Arm, Arm | None]] = [
        (Arm({**of.declared, "part": arm.declared["without"]}, of.runs), arm) for arm in without
    ]
    return judge_contests(ring, sides, "part") if sides else []


def _judge_elsewhere(ring: Ring) -> list[Record]:
    """The transfer arms on every further test set: each set is a family of its own."""
    cell, arms = ring.cell, ring.cell.of_role("transfer")
    tested = {
        name
        for arm in cell.arms
        for run in arm.runs.values()
        for name in (run["metrics"].get("also_test") or {})
    }
    records: list[Record] = []
    for name in sorted(tested):
        file = f"predictions-{name}.parquet"
        reader = Predictions(ring.study.directory, logits=ring.predictions.logits, file=file)
        there = replace(ring, predictions=reader, test_set=name)
        sides = [(arm, cell.scratch()) for arm in arms]
        records += map(_finished, judge_contests(there, sides, "strategy"))
        ring.predictions.unreadable.extend(reader.unreadable)
    return records


def _finished(record: Record) -> Record:
    record["sentence"] = sentence(record)
    return _sealed(record)


def _sealed(record: Record) -> Record:
    record.pop("card_hash", None)
    record["card_hash"] = sha256_record(record)
    return record


def _metric(study: Study, cell: Cell) -> str:
    """The metric declared for the cell, else for the study, else what its runs chose."""
    stated = (cell.declared.get("metric"), study.header.get("metric"), cell.first("metric"))
    return next((str(metric) for metric in stated if metric in METRICS), "accuracy")


def _label_budgets(cells: Sequence[Cell], records: Sequence[Record]) -> None:
    """Say where the verdict at equal steps and the one at each arm's own best budget differ."""
    twins = {cell.id: cell.declared.get("own_best_of") for cell in cells}
    equal = {(r["cell"], r["arm"]): r for r in records if r["budget"]["kind"] == "equal"}
    for own in records:
        other = equal.get((str(twins.get(own["cell"])), own["arm"]))
        if other is None or other["verdict"] == own["verdict"]:
            continue
        helps_only_early = other["verdict"] == "positive" and own["verdict"] == "equivalent"
        flag = "accelerates_only" if helps_only_early else "budget_dependent"
        for record in (own, other):
            record["flags"].append(flag)
            _sealed(record)
