"""A CSV or Parquet file of any origin as rows of text, with errors that name the line."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from transferlab.errors import UserError

DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Cells:
    """A file's rows, all of them text.

    Attributes:
        path: the file.
        columns: names in the file's order, trimmed and in lower case.
        rows: each row's place in the file (a CSV's line, the header being 1) and its cells.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_cells(path: Path) -> Cells:
    """Read a table whole.

    Raises:
        UserError: it is missing, no table, has a column twice or a row of another length.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "doesn't exist"
        raise UserError(f"{path} {what}. Give a CSV or Parquet file with one row a run.")
    try:
        lines = list(_parquet(path) if is_parquet(path) else _csv(path))
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} can't be read ({' '.join(str(error).split())[:160]}). Save it as UTF-8 CSV or "
            "as Parquet."
        ) from error
    if len(lines) < 2:
        raise UserError(f"{path} has no rows below its header. Give a table with one row a run.")
    columns = tuple(name.strip().lower() for name in lines[0][1])
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UserError(f"{path} has the column {twice[0]!r} more than once. Keep one of them.")
    for place, cells in lines[1:]:
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {place}: {len(cells)} cells under {len(columns)} columns. Quote "
                "cells that hold the delimiter, and give every row all columns."
            )
    rows = tuple((place, dict(zip(columns, cells, strict=True))) for place, cells in lines[1:])
    return Cells(path, columns, rows)


def is_parquet(path: Path) -> bool:
    """Whether a file says by its name that it is Parquet."""
    return path.suffix.lower() in (".parquet", ".pq")


def delimiter_of(header: str) -> str:
    """The delimiter that a CSV's first line has most of."""
    return max(DELIMITERS, key=header.count)


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        delimiter = delimiter_of(stream.readline())
        stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]


def _parquet(path: Path) -> Iterator[tuple[int, list[str]]]:
    table = parquet.read_table(path)
    yield 1, list(table.column_names)
    for index, row in enumerate(zip(*(column.to_pylist() for column in table), strict=True)):
        yield index + 2, [_text(value) for value in row]


def _text(value: Any) -> str:
    """A Parquet cell as a CSV would hold it; a whole float loses its fraction, as seeds do."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
