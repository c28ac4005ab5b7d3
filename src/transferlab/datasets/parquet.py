"""Parquet files in Hugging Face's image layout, read a row group at a time."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.hf_features import (
    choose_image_column,
    class_labels,
    declared_features,
    require_column,
)
from transferlab.datasets.naming import SPLIT_NAMES, require_classes
from transferlab.datasets.opening import broken, open_image
from transferlab.datasets.roots import existing, existing_file
from transferlab.errors import UserError
from transferlab.records import sha256

_KEPT = 3  # row groups in memory: decoding goes through them in order
_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class _Group:
    file: Path
    number: int  # of the row group in its file
    start: int  # position of its first row in the index


class Parquet:
    """Rows of (image, label), the image as a struct of ``bytes`` and ``path``, or as bytes.

    Class names come from the ``huggingface`` schema metadata if it is there. Files called
    ``train-*``, ``validation-*`` and ``test-*`` bring official splits. Other scalar columns
    become metadata.

    Args:
        root: a folder with ``.parquet`` files at any depth, one file, or a list of files.
        image_column: the images; found by itself if only one column can be it.
        label_column: the labels.
    """

    def __init__(
        self,
        root: str | Path | list[str],
        image_column: str | None = None,
        label_column: str = "label",
    ) -> None:
        names = [root] if isinstance(root, str | Path) else root  # or the config's own list type
        self._given = [Path(name).expanduser() for name in names]
        self._wanted, self.label_column = image_column, label_column
        self._tables: OrderedDict[_Group, Any] = OrderedDict()
        self._lock = Lock()

    def index(self) -> Index:
        """List the rows, file by file, reading labels and names but no image."""
        return self._index

    def image(self, position: int) -> Image.Image:
        """Open the image of one row."""
        name = self._index.ids[position]
        which = int(np.searchsorted(self._starts, position, side="right")) - 1
        group = self._groups[which]
        cell = self._rows(group)[position - group.start].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is not None:
            return open_image(content, name)
        if isinstance(cell, dict) and cell.get("path"):
            return open_image(group.file.parent / cell["path"])
        raise broken(name, f"row {position - group.start} of its row group is empty")

    def _rows(self, group: _Group) -> Any:
        with self._lock:  # several threads decode; one of them reads
            if group not in self._tables:
                table = _opened(group.file).read_row_group(
                    group.number, columns=[self._image_column]
                )
                self._tables[group] = table.column(self._image_column).combine_chunks()
                if len(self._tables) > _KEPT:
                    self._tables.popitem(last=False)
            return self._tables[group]

    @cached_property
    def _files(self) -> list[Path]:
        files: list[Path] = []
        for path in self._given:
            if len(self._given) == 1 and path.suffix.lower() != ".parquet":
                files = sorted(existing(path, "target.root").rglob("*.parquet"))
            else:
                files.append(existing_file(path, "target.root"))
        if not files:
            raise UserError(f"{self._given[0]} holds no .parquet file. Check `target.root`.")
        return files

    @cached_property
    def _schema(self) -> Any:
        schemas = {path: _opened(path).schema_arrow for path in self._files}
        first = schemas[self._files[0]]
        for path, schema in schemas.items():
            if schema.names != first.names:
                raise UserError(
                    f"{path} has the columns {', '.join(schema.names)}, and {self._files[0]} has "
                    f"{', '.join(first.names)}. Give files of one dataset."
                )
        return first

    @cached_property
    def _image_column(self) -> str:
        features = declared_features(self._schema.metadata)
        declared = [name for name, kind in features.items() if _is_image(kind)]
        shaped = [field.name for field in self._schema if _holds_bytes(field.type)]
        return choose_image_column(self._wanted, declared or shaped, self._schema.names)

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, start = [], 0
        for path in self._files:
            about = _opened(path).metadata
            for number in range(about.num_row_groups):
                groups.append(_Group(path, number, start))
                start += about.row_group(number).num_rows
        return groups

    @cached_property
    def _starts(self) -> list[int]:
        return [group.start for group in self._groups]

    @cached_property
    def _index(self) -> Index:
        label = require_column(self.label_column, self._schema.names, "label_column")
        scalars = [field.name for field in self._schema if _is_scalar(field.type)]
        tables = [_opened(path).read(columns=sorted({label, *scalars})) for path in self._files]
        rows = pa.concat_tables(tables, promote_options="permissive")
        if rows.num_rows == 0:
            raise UserError(f"{self._given[0]} holds no rows.")
        kind = declared_features(self._schema.metadata).get(label)
        labels, classes = class_labels(rows.column(label).to_pylist(), kind, label)
        require_classes(classes, self._given[0])
        lengths = [table.num_rows for table in tables]
        return Index(
            ids=self._ids(lengths),
            labels=labels,
            classes=classes,
            stamp=f"parquet-{sha256(self._stamp())}",
            splits=self._splits(lengths),
            metadata={
                name: tuple("" if cell is None else str(cell) for cell in rows[name].to_pylist())
                for name in scalars
                if name != label
            },
        )

    def _stamp(self) -> str:
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files]
        return repr([facts, self._image_column, self.label_column])

    def _splits(self, lengths: list[int]) -> tuple[str, ...] | None:
        found = [_SPLIT.match(path.name) for path in self._files]
        if not any(found):
            return None
        strange = [path for path, match in zip(self._files, found, strict=True) if match is None]
        if strange:
            raise UserError(
                f"{strange[0]} is called after no split, though other files are. Give the files "
                "to use as a list in `target.root`, or rename it to train-, validation- or test-."
            )
        splits: list[str] = []
        for match, count in zip(found, lengths, strict=True):
            if match is not None:
                splits += [SPLIT_NAMES[match[1].lower()]] * count
        return tuple(splits)

    def _ids(self, lengths: list[int]) -> tuple[str, ...]:
        """Name the rows by the images' own paths where they are unique, else by file and row."""
        kind = self._schema.field(self._image_column).type
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            leaf = [f"{self._image_column}.path"]
            paths = [
                cell["path"]
                for file in self._files
                for cell in _opened(file).read(columns=leaf)[self._image_column].to_pylist()
            ]
            if None not in paths and len(set(paths)) == len(paths):
                return tuple(paths)
        stems = [file.stem for file in self._files]
        if len(set(stems)) < len(stems):  # of several folders
            stems = [f"{number}-{stem}" for number, stem in enumerate(stems)]
        return tuple(
            f"{stem}/{row:06d}"
            for stem, count in zip(stems, lengths, strict=True)
            for row in range(count)
        )


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} can't be read as Parquet ({error}). Fetch it again.") from error


def _is_image(feature: object) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _holds_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_scalar(kind: Any) -> bool:
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(texts or numbers or pa.types.is_date(kind) or pa.types.is_timestamp(kind))
