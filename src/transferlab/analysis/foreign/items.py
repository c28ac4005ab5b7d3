"""The answers of one run item by item, from a CSV or Parquet file that a table names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from transferlab.analysis.foreign.cells import delimiter_of, is_parquet
from transferlab.analysis.foreign.options import BY_CLASS, Options
from transferlab.analysis.foreign.rows import Row
from transferlab.errors import UserError, nearest

Floats = NDArray[np.float64]
Names = NDArray[Any]

KNOWN = ("item_id", "correct", "score", "group", "label")


@dataclass(frozen=True)
class ItemScores:
    """One run's scores item by item, in the order of the items' names.

    Attributes:
        ids: (M,) names of the items, as text.
        scores: (M,) in the metric's unit.
        groups: (M,) what binds items together, a patient or an object; None where nothing does.
        labels: (M,) true classes; None where the file has none.
        unread: columns that were not read.
    """

    ids: Names
    scores: Floats
    groups: Names | None
    labels: Names | None
    unread: tuple[str, ...]

    def mean(self, *, by_class: bool) -> float:
        """The run's score: the mean over items, or over the classes' means."""
        if not by_class or self.labels is None:
            return float(self.scores.mean())
        codes = np.unique(self.labels, return_inverse=True)[1]
        return float((np.bincount(codes, weights=self.scores) / np.bincount(codes)).mean())


class ItemFiles:
    """Reads each run's file once, and remembers the columns that were left unread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unread: set[str] = set()
        self._read: dict[int, ItemScores] = {}

    def of(self, row: Row) -> ItemScores:
        """The row's items, checked against the row itself.

        Raises:
            UserError: the file is missing, damaged or lacks a column, or doesn't belong to the
                row.
        """
        if row.line not in self._read:
            found = read_items(row, self.options)
            self.unread.update(found.unread)
            self._read[row.line] = found
        return self._read[row.line]

    def forget(self) -> None:
        """Drop what was read: the next target has other runs."""
        self._read.clear()


def read_items(row: Row, options: Options) -> ItemScores:
    """Read the items of one row.

    Raises:
        UserError: the file can't be read, an item is there twice or has no finite score, or the
            mean over items is not the score that the row states.
    """
    where = f"{row.items} (line {row.line})"
    columns = _columns(row, where)
    if "item_id" not in columns or not {"correct", "score"} & columns.keys():
        lacks = "item_id" if "item_id" not in columns else "correct or score"
        raise UserError(
            f"{where} has no column {lacks} ({nearest(lacks, columns)}). Give item_id, and "
            "correct (0 or 1) or score."
        )
    if {"correct", "score"} <= columns.keys():
        raise UserError(f"{where} has both correct and score. Keep the one that --metric is of.")
    ids = columns["item_id"].astype(str)
    order = np.argsort(ids, kind="stable")
    scores = _correct(columns, options, where) if "correct" in columns else _score(columns, where)
    if "score" in columns:
        scores = scores * options.scale
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"{where} has an item more than once. Give one row an item.")
    items = ItemScores(
        ids[order],
        scores[order],
        _optional(columns, "group", ids),
        _optional(columns, "label", ids),
        tuple(sorted(columns.keys() - set(KNOWN))),
    )
    _require_match(row, items, options, where)
    return items


def _columns(row: Row, where: str) -> dict[str, Names]:
    path = row.items
    if path is None or not path.is_file():
        raise UserError(f"{where} doesn't exist. Paths in the column items start at the table.")
    try:
        table = parquet.read_table(path) if is_parquet(path) else _read_csv(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        text = " ".join(str(error).split())[:160]
        raise UserError(f"{where} can't be read ({text}). Save it as CSV or Parquet.") from error
    if table.num_rows == 0:
        raise UserError(f"{where} has no items. Give one row a test item.")
    names = [name.strip().lower() for name in table.column_names]
    return {name: column.to_numpy() for name, column in zip(names, table.columns, strict=True)}


def _read_csv(path: Any) -> Any:
    with path.open(encoding="utf-8-sig") as stream:
        delimiter = delimiter_of(stream.readline())
    return arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
        # As text: 007 and 7 may be two items, and another file's column may hold letters.
        convert_options=arrow_csv.ConvertOptions(
            column_types={"item_id": pyarrow.string(), "group": pyarrow.string()}
        ),
    )


def _correct(columns: dict[str, Names], options: Options, where: str) -> Floats:
    scores = _numbers(columns["correct"], "correct", where, _boolean)
    if not np.isin(scores, (0.0, 1.0)).all():
        raise UserError(
            f"{where}: correct holds {scores[~np.isin(scores, (0, 1))][0]:g}, not 0 or 1."
        )
    return 1 - scores if options.lower_is_better else scores


def _score(columns: dict[str, Names], where: str) -> Floats:
    return _numbers(columns["score"], "score", where, float)


def _boolean(cell: Any) -> float:
    return {"true": 1.0, "false": 0.0}[str(cell).lower()]


def _numbers(cells: Names, name: str, where: str, read: Callable[[Any], float]) -> Floats:
    try:
        numbers = cells.astype(np.float64)
    except (TypeError, ValueError):
        try:
            numbers = np.array([read(cell) for cell in cells], dtype=np.float64)
        except (TypeError, ValueError, KeyError):
            raise UserError(f"{where}: {name} holds what is no number. Mend the column.") from None
    if not np.isfinite(numbers).all():
        raise UserError(
            f"{where}: {name} has an item without a finite value. If the run failed, write nan as "
            "its score in the table and leave out its items."
        )
    return numbers


def _optional(columns: dict[str, Names], name: str, ids: Names) -> Names | None:
    """Names as text, in the order of the ids; an item whose cell is empty stands alone."""
    if name not in columns:
        return None
    named = [
        f"item {i}" if cell is None or cell != cell or cell == "" else f"{name} {cell}"
        for i, cell in zip(ids, columns[name], strict=True)
    ]
    return np.array(named)[np.argsort(ids, kind="stable")]


def _require_match(row: Row, items: ItemScores, options: Options, where: str) -> None:
    M = len(items.ids)
    if row.n_items is not None and row.n_items != M:
        raise UserError(f"{where} holds {M} items, and the table says n_items={row.n_items}.")
    by_class = options.metric in BY_CLASS
    if by_class and items.labels is None:
        raise UserError(
            f"{where} has no column label, which {options.metric} needs: the true class."
        )
    mean = items.mean(by_class=by_class)
    if abs(mean - row.score) > options.margin / 2:
        raise UserError(
            f"{where} has a mean of {mean / options.scale:.4g}, and the table says the score is "
            f"{row.score / options.scale:.4g}. Give the items of this very run, in the same unit, "
            "or leave out what is not a mean over items."
        )
