"""Handwritten digits that ship with scikit-learn: real images without a download."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.base import Index

_BRIGHTEST = 16  # the values are counts of dark pixels in 4x4 blocks


class Digits:
    """The 1,797 grey 8x8 images of UCI's optical digits (Alpaydin & Kaynak, 1998)."""

    def index(self) -> Index:
        """List the digits in scikit-learn's order; ten classes, no official split."""
        labels = self._data[1]
        return Index(
            ids=tuple(f"{label}/{item:04d}" for item, label in enumerate(labels)),
            labels=labels,
            classes=tuple(str(digit) for digit in range(10)),
            stamp="digits-1",
        )

    def image(self, position: int) -> Image.Image:
        """Return one digit, white on black, mode ``L``."""
        return Image.fromarray(self._data[0][position])

    @cached_property
    def _data(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from sklearn.datasets import load_digits  # half a second, paid only by who reads it

        data = load_digits()
        pixels = np.rint(data.images * (255 / _BRIGHTEST)).astype(np.uint8)
        return pixels, data.target.astype(np.int64)
