"""One row of a table of results that were made elsewhere: a run, read from its cells."""

import math
from dataclasses import dataclass
from pathlib import Path

from transferlab.analysis.foreign.cells import Cells
from transferlab.analysis.foreign.options import Options
from transferlab.errors import UserError, nearest

REQUIRED = ("source", "target", "strategy", "seed", "score")
OPTIONAL = ("n_items", "items")
SCRATCH = "scratch"
FAILED = ("", "nan", "na", "n/a", "none", "null", "-", "inf", "+inf", "-inf", "infinity")
"""What stands for the score of a run that failed."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        line: where it stands in the file.
        source: where its weights came from; ``none`` for random ones.
        target: what it was adapted to.
        strategy: how; ``scratch`` is the baseline.
        seed: the name of its replicate.
        score: in the metric's unit, percents divided by 100; NaN for a run that failed.
        n_items: test items; None where the table doesn't say.
        items: its answers item by item; None where there are none.
    """

    line: int
    source: str
    target: str
    strategy: str
    seed: str
    score: float
    n_items: int | None
    items: Path | None

    @property
    def failed(self) -> bool:
        """Whether the run came to no score."""
        return math.isnan(self.score)

    @property
    def arm(self) -> Key:
        """Source and strategy, which name an arm within a target."""
        return self.source, self.strategy


def row_of(cells: Cells, line: int, row: dict[str, str], options: Options) -> Row:
    """Read one row.

    Raises:
        UserError: a cell that must be filled is empty, or a number can't be read.
    """
    where = f"{cells.path}, line {line}"
    for column in ("target", "strategy", "seed"):
        if not row[column]:
            more = " Write 0 where there was one run." if column == "seed" else ""
            raise UserError(f"{where}: the {column} is empty. Fill it in.{more}")
    if not row["source"] and row["strategy"] != SCRATCH:
        near = nearest(row["strategy"].lower(), [SCRATCH])
        hint = f" ({near})" if near.startswith("nearest") else ""
        raise UserError(
            f"{where}: the source is empty and the strategy is {row['strategy']!r}{hint}. Name the "
            f"source, or write none for random weights; only {SCRATCH} may leave it out."
        )
    score, items = _score(row["score"], where), row.get("items", "")
    if items and math.isnan(score):
        raise UserError(
            f"{where}: there are items and no score. Give the score as well, which is checked "
            "against them, or leave the items out where the run failed."
        )
    return Row(
        line=line,
        source="none" if row["strategy"] == SCRATCH else row["source"],
        target=row["target"],
        strategy=row["strategy"],
        seed=_seed(row["seed"]),
        score=options.scale * score,
        n_items=_n_items(row.get("n_items", ""), where),
        items=cells.path.parent / items if items else None,
    )


def _seed(text: str) -> str:
    """Seeds are names; a spreadsheet's ``1.0`` is ``1``."""
    head, point, tail = text.partition(".")
    return head if point and head.isdigit() and not tail.strip("0") else text


def _score(text: str, where: str) -> float:
    if text.lower() in FAILED:
        return math.nan
    try:
        return float(text)
    except ValueError:
        hint = "Write a number with a decimal point, or nan for a run that failed."
        raise UserError(f"{where}: the score {text!r} is no number. {hint}") from None


def _n_items(text: str, where: str) -> int | None:
    if text.lower() in FAILED:
        return None
    whole = _seed(text)
    if not whole.isdigit() or int(whole) < 1:
        raise UserError(
            f"{where}: n_items is {text!r}. Write the number of test items, 1 or more, or leave it "
            "empty."
        )
    return int(whole)
