"""The report's sections with a table for each cell: their titles, and what fills them."""

from collections.abc import Sequence

from transferlab.analysis import facts
from transferlab.analysis.arms import Cell
from transferlab.analysis.calibrated import calibration
from transferlab.analysis.forgetting import drift, forgetting
from transferlab.analysis.load import Study
from transferlab.analysis.speed import speed_table
from transferlab.analysis.subgroups import class_table, group_table
from transferlab.records import Record

SECTIONS = (
    {
        "id": "baselines",
        "title": "Baselines",
        "lead": "What needs no deep network, beside every arm's test score, best first. An arm "
        "below one of these has learned little that matters.",
    },
    {
        "id": "cost",
        "title": "Cost",
        "lead": "What a mean run of every arm takes. The source's own pretraining is not in these "
        "figures: it is made once, shared, and recorded with the source run.",
    },
    {
        "id": "overfitting",
        "title": "Overfitting",
        "lead": "Scores in percent, means over replicates. The wider train minus test, the more an "
        "arm remembers its training images instead of learning from them.",
    },
    {
        "id": "speed",
        "title": "Time to accuracy",
        "lead": "How soon an arm's validation score is as good as 95 % of what scratch ends at.",
    },
    {
        "id": "classes",
        "title": "Class by class",
        "lead": "A gain over all images may hide classes that transfer harms.",
    },
    {
        "id": "groups",
        "title": "Groups of images",
        "lead": "Whether an arm serves all groups alike, and what transfer adds to the gap.",
    },
    {
        "id": "calibration",
        "title": "Calibration",
        "lead": "How far an arm's confidence can be believed.",
    },
    {
        "id": "forgetting",
        "title": "Forgetting",
        "lead": "What the arms lost of their source.",
    },
    {
        "id": "drift",
        "title": "Drift of the features",
        "lead": "How far each layer group has moved from the weights that it started from.",
    },
    {
        "id": "compared",
        "title": "What was compared with what",
        "lead": "Equal chances: every arm gets the same trials, steps, images and preprocessing. "
        "What differs is in the first table of each cell, what is shared below it. An arm whose "
        "runs choose among sets of weights on validation has more than one trial in a run.",
    },
)


def cell_tables(
    study: Study, cell: Cell, verdicts: Sequence[Record]
) -> dict[str, facts.Table | None]:
    """The tables of a cell by section; None where there is nothing to show."""
    return {
        "baselines": _if_rows(facts.baselines(cell)),
        "cost": _if_rows(facts.costs(cell)),
        "overfitting": _if_rows(facts.overfitting(cell)),
        "speed": speed_table(cell),
        "classes": class_table(verdicts),
        "groups": group_table(verdicts),
        "calibration": calibration(cell, study.directory),
        "forgetting": _if_rows(forgetting(cell)),
        "drift": _if_rows(drift(cell)),
        "compared": _if_rows(facts.compared(cell)),
    }


def _if_rows(table: facts.Table) -> facts.Table | None:
    return table if table.rows else None
