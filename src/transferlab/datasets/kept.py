"""Images as the model takes them, kept from the first time that they were made."""

from collections.abc import Callable

import torch
from torch import Tensor

BOUND = 256 * 2**20
"""Bytes of images up to which they are kept."""


class KeptImages:
    """N images of which each is made once; memory is taken as they come.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self._made = torch.zeros(count, dtype=torch.bool)
        self._rows: Tensor | None = None

    def images(self, positions: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the images at (B,) positions, a copy, in the memory format that they came in.

        Args:
            positions: (B,) in [0, N), on the CPU.
            make: from some of the positions to their (b, C, H, W) images.
        """
        with torch.inference_mode(False):  # training uses what an evaluation has made
            missing = positions[~self._made[positions]]
            if len(missing) or self._rows is None:
                self._keep(missing, make(missing))
            assert self._rows is not None
            found = self._rows.index_select(0, positions).view(-1, *self._shape)
        return found.permute(0, 3, 1, 2) if self._last else found

    def _keep(self, positions: Tensor, images: Tensor) -> None:
        self._last = images.is_contiguous(memory_format=torch.channels_last)
        images = images.permute(0, 2, 3, 1) if self._last else images
        if self._rows is None:  # pages that nothing is written to take no memory
            self._shape = images.shape[1:]
            self._rows = images.new_empty(len(self._made), self._shape.numel())
        self._rows[positions] = images.flatten(1)
        self._made[positions] = True
