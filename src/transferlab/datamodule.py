"""Batches by index: decoded images in, normalised and augmented input out, on the device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import psutil
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset, Sampler

from transferlab.augmentations.mixing import Mixing
from transferlab.backbones.timm import Preprocessing
from transferlab.datasets.batches import From, InOrder, Share, Shuffled
from transferlab.datasets.store import ImageStore
from transferlab.randomness import derive_seed, sample_uniforms

Positions = NDArray[np.int64]
SHARE_OF_DEVICE_MEMORY = 0.25
EVALUATION_BATCH = 128
"""Images at a time in evaluation, where training does not take more."""


class Batch:
    """What a step sees.

    Args:
        images: (B, C, H, W) input, or what makes it: not every step asks for it.
        labels: (B,) class numbers, or (B, K) probabilities in training under an augmentation
            that mixes images.
        positions: (B,) items.
        views: (B,) which of its views an item shows; None where it has no fixed ones.
    """

    def __init__(
        self,
        images: Tensor | Callable[[], Tensor],
        labels: Tensor,
        positions: Tensor,
        views: Tensor | None = None,
    ) -> None:
        self._images, self.labels, self.positions, self.views = images, labels, positions, views

    @property
    def images(self) -> Tensor:
        """The (B, C, H, W) input, made when it is first asked for."""
        if not isinstance(self._images, Tensor):
            self._images = self._images()
        return self._images


class TransferDataModule(LightningDataModule):
    """Serve one run's images.

    Args:
        store: decoded uint8 images and labels.
        train, validation: item positions.
        preprocessing: from images in [0, 1] to the backbone's input.
        augmentations: as ``transferlab.augmentations`` says, in order; training batches alone.
        batch_size: images per optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches per optimiser step.
        steps: the budget.
        seed: of the order and the augmentation.
        data: ``device`` keeps the decoded images there, ``stream`` reads them batch by batch,
            ``auto`` keeps them on an accelerator if they take at most a quarter of its memory.
        workers: processes that read ahead where images are streamed.
        channels_last: memory format of the input.
        views: of every augmented image, shown one an epoch, in turn; None augments anew each time.
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
        accumulate: int = 1,
        steps: int = 1,
        seed: int = 0,
        data: str = "auto",
        workers: int = 0,
        channels_last: bool = True,
        views: int | None = None,
    ) -> None:
        super().__init__()
        self.store, self.train, self.validation = store, train, validation
        self.preprocessing, self.augmentations = preprocessing, list(augmentations)
        self.batch_size, self.accumulate = batch_size, accumulate
        self.steps, self.seed = steps, seed
        self.data, self.workers, self.channels_last = data, workers, channels_last
        self.views = views if augmentations else None
        self.predicted: list[Positions] = []
        self._labels = torch.as_tensor(np.asarray(store.labels))
        self._resident: Tensor | None = None

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps of one pass over the training images."""
        return len(self.train) / self.batch_size

    def setup(self, stage: str) -> None:
        """Move the decoded images to the device where they belong there."""
        del stage
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._labels = self._labels.to(device)
        if self._resident is None and self._keeps_on(device):
            everything = np.arange(len(self.store), dtype=np.int64)
            self._resident = torch.from_numpy(self.store.images(everything)).to(device)

    def release(self) -> None:
        """Give the decoded images' memory on the device back; the next setup takes it again."""
        self._resident = None

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Serve this rank's micro-batches, from the optimiser step that comes next."""
        batches = Shuffled(
            self._source(), self.train, self.batch_size, self.steps, self.seed, self._share()
        )
        done = self.trainer.global_step * self.accumulate if self.trainer else 0
        return self._loader(batches, From(done, len(batches)))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Serve the validation images in order."""
        return self._loader(self._in_order(self.validation))

    def predict_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Serve each of the position lists in ``predicted``, in order."""
        return [self._loader(self._in_order(positions)) for positions in self.predicted]

    def step_labels(self, step: int) -> Tensor:
        """Return the labels of an optimiser step's images, over all ranks and micro-batches."""
        whole = Shuffled(None, self.train, self.batch_size, self.steps, self.seed)[step]
        return self._labels[whole["positions"]]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> Batch:
        """Gather, augment and normalise a batch on the device."""
        del dataloader_idx
        positions: Tensor = batch["positions"]
        labels = self._labels[positions]
        if batch["step"] < 0 or not self.augmentations:
            return Batch(partial(self._input, batch), labels, positions)
        if not self.mixes:
            views = None if self.views is None else batch["epochs"].to(positions) % self.views
            return Batch(partial(self._augmented, batch, views), labels, positions, views)
        images, labels = self._mixed(batch, labels)
        return Batch(self._normalised(images), labels, positions)

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed with others of their batch."""
        return any(isinstance(module, Mixing) for module in self.augmentations)

    def images(self, positions: Positions, device: torch.device, view: int | None = None) -> Tensor:
        """Return the (B, C, H, W) input of some items as evaluation sees it, or a view of them."""
        items = torch.from_numpy(positions).to(device)
        if view is None:
            return self._input({"positions": items})
        return self._augmented({"positions": items}, torch.full_like(items, view))

    def _input(self, batch: dict[str, Any]) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return self._converted(self.preprocessing.from_uint8(self._decoded(batch), layout))

    def _augmented(self, batch: dict[str, Any], views: Tensor | None) -> Tensor:
        images = self._pixels(batch)
        with torch.autocast(images.device.type, enabled=False):  # it may be asked for in a step
            for module, own in zip(self.augmentations, self._draws(batch, views), strict=True):
                images = module(images, own)
        return self._normalised(images)

    def _pixels(self, batch: dict[str, Any]) -> Tensor:
        """Return a batch's images in [0, 1], as augmentations want them."""
        return self._decoded(batch).to(torch.float32).div_(255)

    def _decoded(self, batch: dict[str, Any]) -> Tensor:
        """Return a batch's uint8 images; they are read now unless that was done ahead."""
        positions: Tensor = batch["positions"]
        if self._resident is not None:
            return self._resident[positions]
        if "images" in batch:
            return cast(Tensor, batch["images"])
        raw = self.store.images(positions.cpu().numpy())
        return torch.from_numpy(raw).to(positions.device)

    def _normalised(self, images: Tensor) -> Tensor:
        images = self._converted(self.preprocessing.normalise(images))
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _converted(self, images: Tensor) -> Tensor:
        if self.trainer:  # Lightning converts what a loader serves, and this was made after that
            images = self.trainer.precision_plugin.convert_input(images)
        return images

    def _mixed(self, batch: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Apply augmentations of which some mix images, which turns labels into (B, C)."""
        images = self._pixels(batch)
        step, rank = int(batch["step"]), self.trainer.global_rank if self.trainer else 0
        draws = self._draws(batch, None)
        for index, (module, own) in enumerate(zip(self.augmentations, draws, strict=True)):
            if isinstance(module, Mixing):
                if labels.ndim == 1:
                    labels = one_hot(labels, len(self.store.classes)).to(images.dtype)
                place = (index, step, int(batch.get("micro", 0)), rank)
                seed = derive_seed(self.seed, "mixing", *place)
                images, labels = module(images, labels, seed)
            else:
                images = module(images, own)
        return images, labels

    def _draws(self, batch: dict[str, Any], views: Tensor | None) -> Sequence[Tensor]:
        """Return the (B, draws) numbers of each augmentation: by step, or by view."""
        positions: Tensor = batch["positions"]
        needs = [int(module.draws) for module in self.augmentations]  # type: ignore[arg-type]
        if views is None:
            numbers = sample_uniforms(self.seed, int(batch["step"]), positions, sum(needs))
            return torch.split(numbers, needs, dim=1)
        numbers = torch.empty(len(positions), sum(needs), device=positions.device)
        for view in set(views.tolist()):
            own = views == view
            numbers[own] = sample_uniforms(self.seed, view, positions[own], sum(needs))
        return torch.split(numbers, needs, dim=1)

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
        return self.store if self._resident is None and self.workers else None

    def _share(self) -> Share:
        if self.trainer is None:
            return Share(parts=self.accumulate)
        return Share(self.trainer.global_rank, self.trainer.world_size, self.accumulate)

    def share_of(self, positions: Positions) -> Positions:
        """Return the items that evaluation on this rank meets."""
        return self._in_order(positions).positions

    def _in_order(self, positions: Positions) -> InOrder:
        share = self._share()
        size = max(self.batch_size // (share.ranks * share.parts), EVALUATION_BATCH)
        return InOrder(self._source(), positions, size, share)

    def _loader(
        self, batches: Dataset[dict[str, Any]], order: Sampler[int] | None = None
    ) -> DataLoader[dict[str, Any]]:
        workers = 0 if self._resident is not None else self.workers
        return DataLoader(
            batches, batch_size=None, sampler=order, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip
