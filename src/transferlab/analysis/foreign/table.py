"""A table of results that were made elsewhere, checked as a whole before it is judged."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlab.analysis.foreign.cells import Cells, read_cells
from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.rows import OPTIONAL, REQUIRED, SCRATCH, Key, Row, row_of
from transferlab.analysis.formats import count, listing
from transferlab.errors import UserError, nearest
from transferlab.records import sha256_file


@dataclass(frozen=True)
class ForeignTable:
    """A whole table.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        rows: its runs, in the file's order.
        notices: what was left unread or looks strange, in sentences.
    """

    path: Path
    sha256: str
    rows: tuple[Row, ...]
    notices: tuple[str, ...]

    def targets(self) -> list[str]:
        """The targets, in the order of their first rows."""
        return list(dict.fromkeys(row.target for row in self.rows))

    def arms(self, target: str | None = None) -> list[Key]:
        """The (source, strategy) pairs that transfer, of one target or of all: its family."""
        rows = (row for row in self.rows if target in (None, row.target))
        return list(dict.fromkeys(row.arm for row in rows if row.strategy != SCRATCH))

    def runs(self, target: str, arm: Key) -> dict[str, Row]:
        """An arm's runs on a target, by seed."""
        return {row.seed: row for row in self.rows if (row.target, row.arm) == (target, arm)}

    def scratch(self, target: str) -> dict[str, Row]:
        """The baseline's runs on a target, by seed."""
        return self.runs(target, ("none", SCRATCH))


def read_table(path: Path, options: Options) -> ForeignTable:
    """Read a table and check it as a whole.

    Raises:
        UserError: a column is missing, a cell can't be read, scores are in another unit, names
            differ in spelling alone, a run is there twice, or nothing is from scratch.
    """
    cells = read_cells(path)
    _require_columns(cells)
    rows = [row_of(cells, line, row, options) for line, row in cells.rows]
    _require_one_spelling(cells, rows)
    _require_unit(cells, rows, options)
    kept = _without_repeats(cells, rows)
    if not any(row.strategy == SCRATCH for row in kept):
        names = {row.strategy for row in kept}
        raise UserError(
            f"{path}: no row has the strategy {SCRATCH!r} ({nearest(SCRATCH, names)}), so there is "
            "nothing to compare with. Name the runs that were trained from scratch so."
        )
    if all(row.strategy == SCRATCH for row in kept):
        raise UserError(f"{path}: all rows are {SCRATCH!r}. Add runs that transfer.")
    table = ForeignTable(path, sha256_file(path), tuple(kept), ())
    notices = [*_unread(cells), *_merged(cells, rows, kept), *_incomplete(table), *_failed(kept)]
    return ForeignTable(path, table.sha256, table.rows, tuple(notices))


def _require_columns(cells: Cells) -> None:
    missing = [name for name in REQUIRED if name not in cells.columns]
    if missing:
        others = set(cells.columns) - {*REQUIRED, *OPTIONAL} or set(cells.columns)
        raise UserError(
            f"{cells.path} has no column {missing[0]!r} ({nearest(missing[0], others)}). A table "
            f"has the columns {', '.join(REQUIRED)}, and may have {listing(OPTIONAL)}."
        )


def _require_one_spelling(cells: Cells, rows: Sequence[Row]) -> None:
    """Refuse names that differ in case, spaces, - or _ alone: they would be two arms."""
    for column in ("strategy", "source", "target"):
        known: dict[str, tuple[str, int]] = (
            {"scratch": (SCRATCH, 0)} if column == "strategy" else {}
        )
        for row in rows:
            name = str(getattr(row, column))
            plain = "".join(letter for letter in name.lower() if letter not in " -_")
            first, line = known.setdefault(plain, (name, row.line))
            if first != name:
                there = f", line {line}" if line else ""
                raise UserError(
                    f"{cells.path}, line {row.line}: the {column} {name!r} is spelled unlike "
                    f"{first!r}{there} (nearest: {first}). Spell names alike."
                )


def _require_unit(cells: Cells, rows: Sequence[Row], options: Options) -> None:
    known = [row for row in rows if not row.failed]
    if not known or not options.share:
        return
    high = max(known, key=lambda row: row.score)
    low = min(known, key=lambda row: row.score)
    shown = high.score / options.scale
    where = f"{cells.path}, line {high.line}: the {options.metric} {shown:g}"
    if not options.percent and high.score > 1.5:
        raise UserError(f"{where} is a percent. Divide the scores by 100, or add --percent.")
    if options.percent and 0 < shown <= 1.5:
        raise UserError(f"{where} is the highest, so scores are shares already. Drop --percent.")
    if high.score > 1 + 1e-9:
        raise UserError(f"{where} is above its maximum of {1 / options.scale:g}. Mend the score.")
    if low.score < 0:
        raise UserError(
            f"{cells.path}, line {low.line}: the {options.metric} {low.score / options.scale:g} is "
            "below 0. Mend the score, or name another --metric."
        )


def _without_repeats(cells: Cells, rows: Sequence[Row]) -> list[Row]:
    """Refuse a run that is there twice; scratch repeated for every source counts once."""
    kept: dict[tuple[str, Key, str], Row] = {}
    for row in rows:
        first = kept.setdefault((row.target, row.arm, row.seed), row)
        if first is row or (row.strategy == SCRATCH and _same(first, row)):
            continue
        what = f"{row.strategy} from {row.source} on {row.target} with seed {row.seed}"
        raise UserError(
            f"{cells.path}, lines {first.line} and {row.line} are both {what}. "
            f"{_apart(cells, first, row)}"
        )
    return list(kept.values())


def _same(first: Row, row: Row) -> bool:
    alike = (first.n_items, first.items) == (row.n_items, row.items)
    return alike and (first.score == row.score or (first.failed and row.failed))


def _apart(cells: Cells, first: Row, row: Row) -> str:
    by_line = dict(cells.rows)
    one, other = by_line[first.line], by_line[row.line]
    names = [
        name
        for name in cells.columns
        if name not in (*REQUIRED, *OPTIONAL) and one[name] != other[name]
    ]
    if row.strategy == SCRATCH and one["source"] != other["source"]:
        names = ["source"]
    if not names:
        return "Keep one of them, or give each run a seed of its own."
    return (
        f"They differ in {listing(names)}, which is not read there: make a table for each, or "
        "write it into the target's name."
    )


def _unread(cells: Cells) -> list[str]:
    unread = [name for name in cells.columns if name not in (*REQUIRED, *OPTIONAL)]
    if not unread:
        return []
    missing = sorted(set(OPTIONAL) - set(cells.columns))
    texts = []
    for name in unread:
        near = difflib.get_close_matches(name, missing, n=1, cutoff=0.75)
        texts.append((name or "(no name)") + (f" (nearest: {near[0]})" if near else ""))
    return [f"{count(len(unread), 'column')} not read: {', '.join(texts)}."]


def _merged(cells: Cells, rows: Sequence[Row], kept: Sequence[Row]) -> list[str]:
    """What was done to the rows of scratch, which has no source."""
    by_line = dict(cells.rows)
    scratch = [row for row in rows if row.strategy == SCRATCH]
    named = sum(by_line[row.line]["source"].lower() not in ("", "none") for row in scratch)
    fewer = len(rows) - len(kept)
    notices = []
    if named:
        notices.append(f"{count(named, 'row')} of {SCRATCH} name a source, which it has none of.")
    if fewer:
        notices.append(f"{count(fewer, 'row')} of {SCRATCH} repeat another and count once.")
    return notices


def _incomplete(table: ForeignTable) -> list[str]:
    everything = table.arms()
    without = [target for target in table.targets() if not table.scratch(target)]
    notices = []
    for target in without:
        names = {strategy for _, strategy in table.arms(target)}
        hint = nearest(SCRATCH, names)
        close = f" ({hint})" if hint.startswith("nearest") else ""
        notices.append(f"{target} has no row with the strategy {SCRATCH}{close}.")
    for target in table.targets():
        if not table.arms(target):
            notices.append(f"{target} has only rows of {SCRATCH}, so nothing to judge.")
    gaps = [
        f"{strategy} from {source} on {target}"
        for target in table.targets()
        if table.arms(target)
        for source, strategy in everything
        if (source, strategy) not in table.arms(target)
    ]
    if gaps:
        more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
        notices.append(f"No row for {', '.join(gaps[:3])}{more}.")
    return notices


def _failed(rows: Sequence[Row]) -> list[str]:
    failed = [row.line for row in rows if row.failed]
    if not failed:
        return []
    shown = ", ".join(map(str, failed[:6])) + (", …" if len(failed) > 6 else "")
    lines = f"line{'s' if len(failed) > 1 else ''} {shown}"
    return [
        f"{count(len(failed), 'run')} without a finite score counted as failed ({lines}). Their "
        "pairs are left out; a check that puts failed runs at chance level can't be made, since "
        "the table has no number of classes."
    ]
