"""Datasets of the Hugging Face hub, by name, through the ``datasets`` library."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.hf_features import choose_image_column, class_labels, require_column
from transferlab.datasets.naming import SPLIT_NAMES, require_classes
from transferlab.datasets.opening import broken, open_image
from transferlab.errors import UserError
from transferlab.records import sha256

_log = logging.getLogger(__name__)


class Hub:
    """A dataset that ``datasets.load_dataset`` finds, with its official splits.

    Args:
        name: of the dataset on the hub, or of a builder (``imagefolder``, ``parquet``).
        config: the dataset's configuration, if it has several.
        revision: a commit, branch or tag; a commit keeps results comparable.
        image_column: the images; found by itself if only one column holds images.
        label_column: the labels.
        data_dir: handed to the builder.
        data_files: handed to the builder.
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str = "label",
        data_dir: str | None = None,
        data_files: Any = None,
    ) -> None:
        self.name, self.config, self.revision = name, config, revision
        self._wanted, self.label_column = image_column, label_column
        self._source = {"data_dir": data_dir, "data_files": data_files}

    def index(self) -> Index:
        """List the rows of all official splits."""
        return self._index

    def image(self, position: int) -> Image.Image:
        """Open the image of one row."""
        name = self._index.ids[position]
        column = self._image_column
        for part in self._images.values():
            if position >= len(part):
                position -= len(part)
                continue
            cell = part[position][column]
            if cell and cell.get("bytes") is not None:
                return open_image(cell["bytes"], name)
            if cell and cell.get("path"):
                return open_image(Path(cell["path"]))
            raise broken(name, "the row is empty")
        raise IndexError(position)

    @cached_property
    def _parts(self) -> dict[str, Any]:
        """Load the rows of each split; splits that are none of the three are left out, aloud."""
        library = _library()
        given = {key: value for key, value in self._source.items() if value is not None}
        try:
            loaded = library.load_dataset(self.name, self.config, revision=self.revision, **given)
        except Exception as error:  # of any kind: network, builder, configuration
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the hub's dataset {self.name!r} can't be loaded ({first}). Check the name, "
                "`target.dataset.config` and the network."
            ) from error
        by_split = {str(split): rows for split, rows in loaded.items()}
        parts = {split: rows for split, rows in by_split.items() if split in SPLIT_NAMES}
        if not parts and len(by_split) == 1:
            return {"": next(iter(by_split.values()))}
        left = sorted(set(by_split) - set(parts))
        if left:
            _log.warning("%s: splits left out: %s", self.name, ", ".join(left))
        if not parts:
            raise UserError(f"{self.name} has no split called train, only {', '.join(left)}.")
        return parts

    @property
    def _features(self) -> Any:
        return next(iter(self._parts.values())).features

    @cached_property
    def _image_column(self) -> str:
        image = _library().Image
        found = [name for name, kind in self._features.items() if isinstance(kind, image)]
        return choose_image_column(self._wanted, found, list(self._features))

    @cached_property
    def _images(self) -> dict[str, Any]:
        """Give the image column undecoded, so that a broken image can be named or skipped."""
        column, undecoded = self._image_column, _library().Image(decode=False)
        return {
            split: rows.select_columns([column]).cast_column(column, undecoded)
            for split, rows in self._parts.items()
        }

    @cached_property
    def _index(self) -> Index:
        parts, features = self._parts, self._features
        label = require_column(self.label_column, list(features), "label_column")
        names = getattr(features[label], "names", None)
        cells = self._column(label)
        labels, classes = class_labels(cells, {"names": names} if names else None, label)
        require_classes(classes, self.name)
        splits: list[str] = []
        for split, rows in parts.items():
            splits += [SPLIT_NAMES.get(split, "")] * rows.num_rows
        return Index(
            ids=tuple(
                f"{split or 'all'}/{row:06d}"
                for split, rows in parts.items()
                for row in range(rows.num_rows)
            ),
            labels=labels,
            classes=classes,
            stamp=self._stamp(),
            splits=tuple(splits) if any(splits) else None,
            metadata={
                name: tuple("" if cell is None else str(cell) for cell in self._column(name))
                for name in self._scalars()
                if name != label
            },
        )

    def _column(self, name: str) -> list[Any]:
        return [cell for rows in self._parts.values() for cell in rows[name]]

    def _scalars(self) -> list[str]:
        return [
            name
            for name, kind in self._features.items()
            if type(kind).__name__ in ("Value", "ClassLabel")
        ]

    def _stamp(self) -> str:
        facts = [(split, rows._fingerprint) for split, rows in self._parts.items()]
        return f"hub-{sha256(repr([facts, self._image_column, self.label_column]))}"


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "datasets of the hub need one more package: pip install 'transferlab[hub]'."
        ) from error
    return datasets
