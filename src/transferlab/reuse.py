"""What a frozen part computes is computed once an image, not once a step."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from transferlab.datamodule import Batch, Positions, TransferDataModule
from transferlab.frozen_part import Cut, NoCutError, Values, per_image
from transferlab.model import TransferModel

BLOCK = 64
"""Images that the frozen part takes at a time, always: in another company last bits could move."""
PASSES = 2
"""Over the training images that a phase has to take at the least; fewer would gain nothing."""


class Bank:
    """What leaves the frozen part, for some items; maps are kept as (n, H, W, C).

    Args:
        cut: of the model.
        data: serves the images.
        positions: of the items, each once.
        device: where the model lies.
        most_bytes: that may be held.

    Attributes:
        bytes: that are held.
        multiply_adds: that it took.

    Raises:
        NoCutError: the values take more than that, or are not one an image.
    """

    def __init__(
        self,
        cut: Cut,
        data: TransferDataModule,
        positions: Positions,
        device: torch.device,
        most_bytes: float,
    ) -> None:
        self.bytes, self.multiply_adds = 0, 0
        self._cut, self._values = cut, list[Tensor]()
        self._maps: list[bool] = []
        blocks = -(-len(positions) // BLOCK)
        with torch.no_grad():
            for start in range(0, blocks * BLOCK, BLOCK):
                own = positions[start : start + BLOCK]
                images = data.images(np.resize(own, BLOCK), device)
                with FlopCounterMode(display=False) if not start else nullcontext() as counter:
                    found = per_image(cut.before(images), BLOCK)
                if counter is not None:
                    self.multiply_adds = counter.get_total_flops() // 2 * blocks
                    self._make_room(found, len(positions), most_bytes)
                for room, value in zip(self._values, self._kept(found), strict=True):
                    room[start : start + len(own)] = value[: len(own)]
        self._rows = torch.full((len(data.store),), -1, dtype=torch.int64)
        self._rows[torch.from_numpy(positions)] = torch.arange(len(positions))
        self._rows = self._rows.to(device)

    def features(self, positions: Tensor) -> Tensor:
        """Return the features of (B,) items."""
        rows = self._rows[positions]
        found = (value.index_select(0, rows) for value in self._values)
        pairs = zip(found, self._maps, strict=True)
        return self._cut.after(tuple(v.permute(0, 3, 1, 2) if own else v for v, own in pairs))

    def _make_room(self, found: Values, images: int, most_bytes: float) -> None:
        self._maps = [
            v.ndim == 4 and v.is_contiguous(memory_format=torch.channels_last) for v in found
        ]
        self.bytes = sum(value[0].numel() * value.element_size() for value in found) * images
        if self.bytes > most_bytes:
            raise NoCutError(
                f"what leaves its frozen part takes {self.bytes / 2**30:.1f} GiB for {images} "
                f"images, and trainer.reuse_gb leaves {most_bytes / 2**30:.1f}"
            )
        self._values = [v.new_empty((images, *v.shape[1:])) for v in self._kept(found)]

    def _kept(self, found: Values) -> list[Tensor]:
        pairs = zip(found, self._maps, strict=True)
        return [value.permute(0, 2, 3, 1) if own else value for value, own in pairs]


class Reuse:
    """Train behind the frozen part of a model on what leaves it.

    Where nothing random happens to the images, and what is in front of the first trained layer
    stands still, its activations are the same at every step. They are computed once for every
    training image when a phase begins, and for every validation image when a validation first
    asks. The weights end as they would without, to rounding.

    Args:
        data: serves the images.
        batch_size: images of an optimiser step on this rank.
        most_bytes: that may be held.

    Attributes:
        why_not: why the whole model runs at every step, where it does.
        multiply_adds: that the frozen part has taken so far for training images.
    """

    def __init__(self, data: TransferDataModule, batch_size: int, most_bytes: float) -> None:
        self.data, self.batch_size, self.most_bytes = data, batch_size, most_bytes
        self.why_not: str | None = "no phase has begun"
        self.multiply_adds = 0
        self._cut: Cut | None = None
        self._train: Bank | None = None
        self._validation: Bank | None = None

    def begin(self, model: TransferModel, device: torch.device, steps: int) -> None:
        """Compute what a phase reuses; what is held of an earlier one is given up.

        Args:
            model: in train mode, as the phase wants it.
            device: where it lies.
            steps: optimiser steps of the phase, at the most.
        """
        self._cut = self._train = self._validation = None
        try:
            if self.data.augmentations:
                raise NoCutError("training images are augmented anew at every step")
            if steps * self.batch_size < PASSES * len(self.data.train):
                raise NoCutError(f"the phase passes over its images less than {PASSES} times")
            self._cut = Cut(model)
            self._train = self._bank(np.sort(self.data.train), device)
            self.multiply_adds += self._train.multiply_adds
            self.why_not = None
        except NoCutError as reason:
            self.why_not = str(reason)

    def training(self, batch: Batch) -> Tensor | None:
        """Return the features of a training batch; None where the whole model has to run."""
        return None if self._train is None else self._train.features(batch.positions)

    def validation(self, batch: Batch) -> Tensor | None:
        """Return the features of a validation batch; None where the whole model has to run."""
        if self._train is None:
            return None
        if self._validation is None:
            try:
                own = np.unique(self.data.share_of(self.data.validation))
                self._validation = self._bank(own, batch.positions.device)
            except NoCutError:
                return None
        return self._validation.features(batch.positions)

    def _bank(self, positions: Positions, device: torch.device) -> Bank:
        assert self._cut is not None
        left = self.most_bytes - (self._train.bytes if self._train else 0)
        return Bank(self._cut, self.data, positions, device, left)
