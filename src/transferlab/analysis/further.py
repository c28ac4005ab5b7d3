"""Tables of what is judged besides a strategy against scratch: sources, parts, other test sets."""

from collections.abc import Mapping, Sequence

from transferlab.analysis.arms import Cell
from transferlab.analysis.early import early_table
from transferlab.analysis.facts import Table
from transferlab.analysis.formats import (
    NOTHING,
    interval,
    listing,
    p_value,
    points,
    unit_of,
)
from transferlab.analysis.load import Study
from transferlab.analysis.predicted import agreement_table, predicted_table
from transferlab.analysis.sizes import size_table
from transferlab.analysis.verdicts import Judged
from transferlab.analysis.words import word_of
from transferlab.records import Record

Titled = tuple[str, Table]


def of_cell(records: Sequence[Record], cell: Cell) -> list[Record]:
    """The records of one cell."""
    return [record for record in records if record["cell"] == cell.id]


def further_tables(cell: Cell, judged: Judged) -> list[Titled]:
    """What stands under a cell's verdicts, with its headings."""
    tables = (
        _sources(of_cell(judged.sources, cell)),
        _parts(of_cell(judged.parts, cell)),
        _elsewhere(of_cell(judged.elsewhere, cell)),
    )
    return [table for table in tables if table]


def whole_tables(study: Study, judged: Judged) -> list[tuple[str, str, Table]]:
    """What is about several cells at once: anchor, heading and table."""
    sizes = size_table(judged.sizes)
    tables = [("sizes", "Over the size of the target", sizes)] if sizes else []
    if study.predicted:
        beside = predicted_table(study.predicted, judged.strategies)
        order = agreement_table(study.predicted, judged.strategies)
        tables.append(("predicted", "Predicted before training, and realised", beside))
        if order.rows:
            tables.append(("agreement", "How well each score ordered the sources", order))
    early = early_table(judged.strategies)
    if early:
        tables.append(("early", "Warnings early in training, and verdicts", early))
    return tables


def decomposition(rows: Sequence[Sequence[str]]) -> Table:
    """A frozen arm's gain in two parts."""
    head = ["arm", "gain", "95 % interval", "source against random weights", "95 % interval"]
    head += ["freezing against scratch", "95 % interval"]
    note = "Gain = what the source adds to frozen random weights + what freezing costs by itself."
    return Table(head, rows, note=note)


def _sources(records: Sequence[Record]) -> Titled | None:
    """Whether a source does harm whatever is made of it, or only with the wrong strategy."""
    if not records:
        return None
    rows = [
        [record["source"], *_judged(record), listing(_chosen(record["chosen"]))]
        for record in records
    ]
    head = ["source", "verdict", "gain", "95 % interval", "p", "strategies chosen"]
    note = (
        "In every replicate the strategy with the best validation score stands for its source; "
        "test is never looked at for it. These comparisons are a family of their own."
    )
    return "Is it the source, or only a strategy?", Table(head, rows, words=2, note=note)


def _parts(records: Sequence[Record]) -> Titled | None:
    """What every part of a composed source adds to it."""
    if not records:
        return None
    rows = [[record["part"], record["arm"], *_judged(record)] for record in records]
    head = ["part", "of", "verdict", "gain", "95 % interval", "p"]
    note = (
        "The arm with the part in its source against the arm without it, at equal source steps: "
        "a part may do harm inside a source that helps. The parts of an arm are one family."
    )
    return "What each part of the source adds", Table(head, rows, words=3, note=note)


def _elsewhere(records: Sequence[Record]) -> Titled | None:
    """The arms on further test sets."""
    if not records:
        return None
    rows = [[record["test_set"], record["arm"], *_judged(record)] for record in records]
    head = ["test set", "arm", "verdict", "gain", "95 % interval", "p"]
    note = "The same runs on images from elsewhere; each test set is a family of its own."
    return "On further test sets", Table(head, rows, words=3, note=note)


def _judged(record: Record) -> list[str]:
    unit, (low, high) = unit_of(record["metric"]), record["ci95"] or (None, None)
    gain = points(record["delta"], unit=unit)
    p = NOTHING if record["p_sign_holm"] is None else p_value(record["p_sign_holm"])
    return [word_of(record), gain, interval(low, high, unit=unit), p]


def _chosen(counts: Mapping[str, int]) -> list[str]:
    return [f"{arm} ({number})" for arm, number in counts.items() if number]
