"""Closed-form heads: fitted to the features of the training images, over and over."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from transferlab.datamodule import Batch, Positions, TransferDataModule
from transferlab.evaluation import gather, gathered
from transferlab.model import TransferModel


class Remembers(Protocol):
    """What may know the features of a model's images from before."""

    def begin_evaluation(self, model: TransferModel) -> None:
        """Find out what is known of a model, which is in eval mode and stays as it is."""

    def evaluation(self, batch: Batch, positions: Positions) -> Tensor | None:
        """Return the features of a batch of these items, None where they are not known."""


def can_refit(model: TransferModel) -> bool:
    """Say whether the head is fitted in closed form."""
    return callable(getattr(model.head, "refit", None))


def needs_training(model: TransferModel, trains_backbone: bool) -> bool:
    """Say whether gradient steps would change anything.

    Args:
        model: backbone and head.
        trains_backbone: whether the strategy trains any part of the backbone at any time.
    """
    if not getattr(model.head, "gradient", True):
        return False
    return trains_backbone or any(p.requires_grad for p in model.head.parameters())


def refit_head(
    model: TransferModel,
    data: TransferDataModule,
    device: torch.device,
    precision: AbstractContextManager[object] | None = None,
    known: Remembers | None = None,
) -> None:
    """Fit the head in closed form to the features of all training images; others stay as they are.

    The images are not augmented, the model is in eval mode meanwhile, and every module is left in
    the mode that it was found in. With several ranks each computes its share of the features and
    all fit the same head; all of them must call this.

    Args:
        model: backbone and head, on ``device``.
        data: with the training positions.
        device: where the model lies.
        precision: the context that the run's forward passes are made in.
        known: what may know the features, where the backbone never changes.
    """
    if not can_refit(model):
        return
    features = _training_features(model, data, device, precision or nullcontext(), known)
    labels = torch.as_tensor(np.asarray(data.store.labels)[data.train], dtype=torch.int64)
    # buffers made under Lightning's inference mode could not take part in a later training step
    with torch.inference_mode(False), torch.no_grad():
        model.head.refit(features.clone(), labels)  # type: ignore[operator]


def _training_features(
    model: TransferModel,
    data: TransferDataModule,
    device: torch.device,
    precision: AbstractContextManager[object],
    known: Remembers | None,
) -> Tensor:
    """Return the (n, F) features of the training images, in the order of their positions."""
    modes = {module: module.training for module in model.modules()}
    asked, data.predicted = data.predicted, [data.train]
    model.eval()
    if known is not None:
        known.begin_evaluation(model)
    outputs = []
    try:
        with torch.inference_mode(), precision:
            for raw in data.predict_dataloader()[0]:
                if "images" in raw:
                    raw["images"] = raw["images"].to(device)
                batch = data.on_after_batch_transfer(raw, 0)
                found = known.evaluation(batch, data.train) if known else None
                features = model.features(batch.images) if found is None else found
                outputs.append((features.float().cpu().numpy(), batch.positions.cpu().numpy()))
    finally:
        data.predicted = asked
        for module, mode in modes.items():
            module.training = mode
    return torch.from_numpy(gather(gathered(outputs), data.train))
