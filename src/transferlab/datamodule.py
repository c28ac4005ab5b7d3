"""Batches by index: decoded images in, normalised and augmented input out, on the device."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from transferlab.backbones.timm import Preprocessing
from transferlab.datasets.store import ImageStore
from transferlab.randomness import derive_seed, sample_uniforms

Positions = NDArray[np.int64]
SHARE_OF_DEVICE_MEMORY = 0.25


class Batch(NamedTuple):
    """What a step sees: (B, C, H, W) input, (B,) labels, (B,) item positions."""

    images: Tensor
    labels: Tensor
    positions: Tensor


class Shuffled(Dataset[dict[str, Any]]):
    """The batch of every optimiser step, as a pure function of (seed, step).

    Step t takes the next ``batch_size`` images of an endless stream of epochs, each in an order
    of its own: a run of any length sees every image equally often, to within one, and a batch may
    span two epochs.

    Args:
        store: the images, or None where they already lie on the device.
        positions: (n,) training items.
        batch_size: images per optimiser step.
        steps: the budget.
        seed: of the order.
    """

    def __init__(
        self, store: ImageStore | None, positions: Positions, batch_size: int, steps: int, seed: int
    ) -> None:
        self.store, self.positions = store, positions
        self.batch_size, self.steps, self.seed = batch_size, steps, seed

    def __len__(self) -> int:
        """Return the number of optimiser steps."""
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Return the batch of optimiser step ``step``."""
        count = len(self.positions)
        stream = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        chosen = [_order(self.seed, int(i // count), count)[i % count] for i in stream]
        return _fetch(self.store, self.positions[np.array(chosen)], step)


class InOrder(Dataset[dict[str, Any]]):
    """Items in their own order, for evaluation; the last batch may be smaller."""

    def __init__(self, store: ImageStore | None, positions: Positions, batch_size: int) -> None:
        self.store, self.positions, self.batch_size = store, positions, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return batch ``index``."""
        if index >= len(self):
            raise IndexError(index)
        start = index * self.batch_size
        return _fetch(self.store, self.positions[start : start + self.batch_size], -1)


class TransferDataModule(LightningDataModule):
    """Serve one run's images.

    Args:
        store: decoded uint8 images and labels.
        train, validation: item positions.
        preprocessing: from images in [0, 1] to the backbone's input.
        augmentations: modules over (images, uniforms), in order; training batches alone.
        batch_size: images per optimiser step.
        steps: the budget.
        seed: of the order and the augmentation.
        data: ``device`` keeps the decoded images there, ``stream`` reads them batch by batch,
            ``auto`` keeps them on an accelerator if they take at most a quarter of its memory.
        workers: processes that read ahead where images are streamed.
        channels_last: memory format of the input.
    """

    def __init__(  # noqa: PLR0913 - one argument per fact; they are the run's own
        self,
        store: ImageStore,
        *,
        train: Positions,
        validation: Positions,
        preprocessing: Preprocessing,
        augmentations: Sequence[nn.Module] = (),
        batch_size: int = 32,
        steps: int = 1,
        seed: int = 0,
        data: str = "auto",
        workers: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.store, self.train, self.validation = store, train, validation
        self.preprocessing, self.augmentations = preprocessing, list(augmentations)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.data, self.workers, self.channels_last = data, workers, channels_last
        self.predicted: list[Positions] = []
        self._labels = torch.as_tensor(np.asarray(store.labels))
        self._resident: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Move the decoded images to the device where they belong there."""
        del stage
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._labels = self._labels.to(device)
        if self._resident is None and self._keeps_on(device):
            everything = np.arange(len(self.store), dtype=np.int64)
            self._resident = torch.from_numpy(self.store.images(everything)).to(device)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Serve the batch of every optimiser step, once."""
        return self._loader(
            Shuffled(self._source(), self.train, self.batch_size, self.steps, self.seed)
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Serve the validation images in order."""
        return self._loader(InOrder(self._source(), self.validation, self._evaluation_batch()))

    def predict_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Serve each of the position lists in ``predicted``, in order."""
        return [
            self._loader(InOrder(self._source(), positions, self._evaluation_batch()))
            for positions in self.predicted
        ]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> Batch:
        """Gather, augment and normalise a batch on the device."""
        del dataloader_idx
        positions: Tensor = batch["positions"]
        raw = batch["images"] if self._resident is None else self._resident[positions]
        images = raw.to(torch.float32).div_(255)
        if batch["step"] >= 0:
            images = self._augment(images, positions, int(batch["step"]))
        images = self.preprocessing.normalise(images)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self._labels[positions], positions)

    def _augment(self, images: Tensor, positions: Tensor, step: int) -> Tensor:
        if not self.augmentations:
            return images
        needs = [int(module.draws) for module in self.augmentations]  # type: ignore[arg-type]
        numbers = sample_uniforms(self.seed, step, positions, sum(needs))
        uniforms = torch.split(numbers, needs, dim=1)
        for module, own in zip(self.augmentations, uniforms, strict=True):
            images = module(images, own)
        return images

    def _keeps_on(self, device: torch.device) -> bool:
        if self.data == "stream" or device.type == "cpu":
            return False  # a memory-mapped file is memory enough for a CPU
        wanted = int(np.prod(self.store.images(np.zeros(1, np.int64)).shape)) * len(self.store)
        free = (
            torch.cuda.mem_get_info(device)[0]
            if device.type == "cuda"
            else psutil.virtual_memory().available
        )
        return self.data == "device" or wanted <= SHARE_OF_DEVICE_MEMORY * free

    def _source(self) -> ImageStore | None:
        return None if self._resident is not None else self.store

    def _evaluation_batch(self) -> int:
        return max(self.batch_size, 128)

    def _loader(self, batches: Dataset[dict[str, Any]]) -> DataLoader[dict[str, Any]]:
        workers = 0 if self._resident is not None else self.workers
        return DataLoader(
            batches, batch_size=None, shuffle=False, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip


def _fetch(store: ImageStore | None, positions: Positions, step: int) -> dict[str, Any]:
    batch: dict[str, Any] = {"positions": torch.from_numpy(positions), "step": step}
    if store is not None:
        batch["images"] = torch.from_numpy(store.images(positions))
    return batch


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Positions:
    """Return the order of an epoch's items, from (seed, epoch) alone."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
