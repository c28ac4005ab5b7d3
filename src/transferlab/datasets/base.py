"""What every dataset offers: an index of its images, and one image at a time."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Index:
    """What a dataset holds, known before any image is decoded.

    Attributes:
        ids: N unique item names; for files the path below the root, with forward slashes.
        labels: (N,) int64 in [0, C).
        classes: C class names, in label order.
        stamp: changes whenever the files behind the index change (names, sizes, times), or the
            version of generated data; cheap to compute, and part of the decoded cache's key.
        splits: N of ``train``, ``validation``, ``test``; None where the data brings no split.
        metadata: further columns by name, each of N strings (a patient, a scanner, a date).
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stamp: str
    splits: tuple[str, ...] | None = None
    metadata: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.ids)


class Dataset(Protocol):
    """A dataset; a new one is a class with these two methods and a YAML that names it."""

    def index(self) -> Index:
        """List the images without decoding them.

        Raises:
            UserError: the data is missing, empty or inconsistent; the message names the remedy.
        """
        ...

    def image(self, position: int) -> Image.Image:
        """Open the image at ``position`` of the index, in whatever mode its file has.

        Raises:
            UserError: the file can't be read; the message names it.
        """
        ...
