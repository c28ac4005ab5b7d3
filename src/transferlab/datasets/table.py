"""A CSV or Parquet file that lists images, their labels and anything else known about them."""

from functools import cached_property
from pathlib import Path

import pandas as pd
from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.naming import SPLIT_NAMES, encode_labels, require_classes
from transferlab.datasets.opening import open_image
from transferlab.datasets.roots import existing, existing_file
from transferlab.errors import UserError, nearest
from transferlab.records import sha256


class Table:
    """Images listed in a table, one a row.

    All cells are read as text, so a label ``007`` stays what it is. Columns other than path,
    label and split become metadata, which ``target.group_by`` may name.

    Args:
        path: the table: ``.csv``, ``.tsv`` or ``.parquet``.
        root: the folder that paths in the table start from; the table's own by default.
        path_column: names the image files.
        label_column: names the classes.
        split_column: holds train, validation or test. The default is used if the table has it;
            None ignores official splits.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = "split",
    ) -> None:
        self.path = Path(path).expanduser()
        self.root = self.path.parent if root is None else Path(root).expanduser()
        self.path_column, self.label_column = path_column, label_column
        self.split_column = split_column

    def index(self) -> Index:
        """List the images in the order of the table."""
        return self._index

    def image(self, position: int) -> Image.Image:
        """Open one image."""
        return open_image(self.root / self._index.ids[position])

    @cached_property
    def _index(self) -> Index:
        columns = _read(existing_file(self.path, "target.dataset.path"))
        existing(self.root, "target.root")
        ids = self._column(columns, self.path_column, "path_column")
        labels, classes = encode_labels(self._column(columns, self.label_column, "label_column"))
        require_classes(classes, self.path)
        splits = self._splits(columns)
        used = {self.path_column, self.label_column, self.split_column if splits else None}
        return Index(
            ids=tuple(ids),
            labels=labels,
            classes=classes,
            stamp=f"table-{sha256(repr(columns) + self._files(ids))}",
            splits=splits,
            metadata={name: tuple(cells) for name, cells in columns.items() if name not in used},
        )

    def _column(self, columns: dict[str, list[str]], name: str, option: str) -> list[str]:
        if name not in columns:
            raise UserError(
                f"{self.path} has no column {name!r} (`target.dataset.{option}`); "
                f"{nearest(name, columns)}."
            )
        empty = [row for row, cell in enumerate(columns[name], start=1) if not cell]
        if empty:
            raise UserError(
                f"{self.path}: {len(empty)} rows have no {name}, the first is row {empty[0]}. "
                "Fill them in or remove them."
            )
        return columns[name]

    def _splits(self, columns: dict[str, list[str]]) -> tuple[str, ...] | None:
        name = self.split_column
        if name is None or (name == "split" and name not in columns):
            return None
        cells = self._column(columns, name, "split_column")
        strange = sorted({cell for cell in cells if cell.lower() not in SPLIT_NAMES})
        if strange:
            raise UserError(
                f"{self.path}: the split {strange[0]!r} is unknown; "
                f"{nearest(strange[0], SPLIT_NAMES)}. Rename it, or set "
                "`target.dataset.split_column=null` to draw new splits."
            )
        return tuple(SPLIT_NAMES[cell.lower()] for cell in cells)

    def _files(self, ids: list[str]) -> str:
        """Check that the files are there, each listed once; return their sizes and times."""
        twice = pd.Index(ids).duplicated()
        if twice.any():
            raise UserError(
                f"{self.path} lists {int(twice.sum())} images twice, such as "
                f"{ids[int(twice.argmax())]}. Remove the repeated rows."
            )
        stamps, missing = [], []
        for name in ids:
            try:
                entry = (self.root / name).stat()
                stamps.append(f"{entry.st_size}-{entry.st_mtime_ns}")
            except OSError:
                missing.append(name)
        if missing:
            raise UserError(
                f"{len(missing)} of {len(ids)} images that {self.path} lists are not in "
                f"{self.root}, such as {missing[0]}. Set `target.root` to the folder that the "
                "paths start from."
            )
        return "\n".join(stamps)


def _read(path: Path) -> dict[str, list[str]]:
    """Read every cell as text, empty where there is no value."""
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            frame = pd.read_parquet(path)
        elif ending in (".csv", ".tsv"):
            tab = "\t" if ending == ".tsv" else ","
            frame = pd.read_csv(path, sep=tab, dtype=str, keep_default_na=False)
        else:
            raise UserError(f"{path} is no table that can be read; .csv, .tsv and .parquet can.")
    except (ValueError, OSError) as error:  # pyarrow's and pandas' errors are ValueErrors
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} can't be read as a table ({first}).") from error
    columns = {str(name): frame[name].astype(object) for name in frame.columns}
    return {
        name: ["" if missing else str(cell) for cell, missing in zip(cells, gaps, strict=True)]
        for name, cells in columns.items()
        for gaps in [cells.isna()]
    }
