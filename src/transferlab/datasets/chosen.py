"""A part of a dataset: some of its classes, or one half of its images."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.base import Dataset, Index
from transferlab.errors import UserError, nearest

HALVES = ("first", "second")


class Chosen:
    """Some classes, or one half, of another dataset; the two halves share no image.

    A half is every other image of each class within each of the data's own splits, in the
    dataset's order: the same for everybody, and as balanced as the whole. Images that are copies
    of each other may lie on both sides; the checks on overlap see them.

    Args:
        dataset: the whole.
        only: names of the classes to keep, in any order; None for all.
        half: ``first``, ``second``, or None for both.
    """

    def __init__(
        self, dataset: Dataset, only: Sequence[str] | None = None, half: str | None = None
    ) -> None:
        self._dataset, self._half = dataset, half
        self._only = None if only is None else [str(name) for name in only]

    def index(self) -> Index:
        """List the images that are kept; labels are numbered anew, in the dataset's order.

        Raises:
            UserError: a class is unknown or none is left.
        """
        whole, kept = self._whole, self._kept
        old = np.unique(whole.labels[kept])
        return replace(
            whole,
            ids=tuple(whole.ids[p] for p in kept),
            labels=np.searchsorted(old, whole.labels[kept]).astype(np.int64),
            classes=tuple(whole.classes[label] for label in old),
            stamp=f"{whole.stamp}|only={self._only and sorted(self._only)}|half={self._half}",
            splits=None if whole.splits is None else tuple(whole.splits[p] for p in kept),
            metadata={
                name: tuple(values[p] for p in kept) for name, values in whole.metadata.items()
            },
        )

    def image(self, position: int) -> Image.Image:
        """Open one of the images that are kept."""
        return self._dataset.image(int(self._kept[position]))

    @cached_property
    def _whole(self) -> Index:
        return self._dataset.index()

    @cached_property
    def _kept(self) -> NDArray[np.int64]:
        """Positions in the whole dataset, in its order."""
        whole = self._whole
        keep = np.ones(len(whole), dtype=bool)
        if self._only is not None:
            for name in self._only:
                if name not in whole.classes:
                    raise UserError(
                        f"`target.only`: the data has no class {name!r} "
                        f"({nearest(name, whole.classes)})."
                    )
            names = np.array(whole.classes)
            keep &= np.isin(names[whole.labels], self._only)
        if self._half is not None:
            keep &= self._rank % 2 == HALVES.index(self._half)
        if not keep.any():
            raise UserError(f"`target.only={self._only}` with half={self._half} keeps no image.")
        return np.flatnonzero(keep).astype(np.int64)

    @cached_property
    def _rank(self) -> NDArray[np.int64]:
        """How many images of the same class and split stand before each one."""
        whole = self._whole
        splits = whole.splits or ("",) * len(whole)
        seen: dict[tuple[str, int], int] = {}
        ranks = []
        for place in zip(splits, whole.labels.tolist(), strict=True):
            ranks.append(seen.get(place, 0))
            seen[place] = ranks[-1] + 1
        return np.array(ranks, dtype=np.int64)
