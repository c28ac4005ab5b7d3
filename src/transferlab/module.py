"""The LightningModule: nothing in it differs between strategies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from transferlab.callbacks.base import StrategyCallback
from transferlab.datamodule import Batch
from transferlab.errors import RunError
from transferlab.losses import ClassLoss
from transferlab.model import TransferModel
from transferlab.optim import parameter_groups
from transferlab.randomness import derive_seed

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class DivergedError(RunError):
    """The loss became NaN or infinite."""


class TransferModule(LightningModule):
    """Fit one model to one target.

    Args:
        model: backbone and head.
        loss: over (B, C) logits and (B,) labels.
        optimizer: a partial that takes parameter groups.
        lr: the rate of the head; other layers' follow from the strategy.
        scheduler: a partial that takes the optimizer, or None for constant rates.
        seed: from which every step's generators are seeded.
    """

    def __init__(
        self,
        model: TransferModel,
        loss: ClassLoss,
        optimizer: OptimizerFactory,
        lr: float,
        scheduler: SchedulerFactory | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.optimizer, self.lr, self.scheduler, self.seed = optimizer, lr, scheduler, seed
        self.validation_outputs: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self.last_loss = torch.tensor(0.0)
        self._first_bad = torch.tensor(-1)

    def strategy_callbacks(self) -> list[StrategyCallback]:
        """Return the strategy's callbacks, in the order of its YAML."""
        callbacks = getattr(self.trainer, "callbacks", [])
        return [callback for callback in callbacks if isinstance(callback, StrategyCallback)]

    def configure_optimizers(self) -> Any:
        """Build every parameter group at once, with absolute rates."""
        layers = [[(name, p) for name, p in self.model.named_parameters()]]
        callbacks = [c for c in self.strategy_callbacks() if _sets_rates(c)]
        if callbacks:
            layers = self.model.decay_layers()
        scales = np.ones(len(layers))
        for callback in callbacks:
            scales = scales * np.asarray(callback.lr_scales(self.model, len(layers)))
        groups = parameter_groups(layers, scales.tolist(), self.lr, self.model.undecayed())
        optimizer = self.optimizer(groups)
        if self.scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Collect what every step needs."""
        self._penalties = [c for c in self.strategy_callbacks() if _has_penalty(c)]
        self._first_bad = torch.tensor(-1, device=self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the generators from (seed, step, rank): a resumed run draws the same numbers."""
        torch.manual_seed(derive_seed(self.seed, "step", self.global_step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, penalties of the strategy included."""
        loss: Tensor = self.loss(self.model(batch.images), batch.labels)
        for callback in self._penalties:
            penalty = callback.penalty(self.model)
            if penalty is not None:
                loss = loss + penalty
        self.last_loss = loss.detach()
        # kept on the device: reading it back at every step would stall an accelerator
        bad = ~torch.isfinite(self.last_loss) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, self.global_step, self._first_bad)
        return loss

    def raise_if_diverged(self) -> None:
        """Raise DivergedError if any loss so far was NaN or infinite; this waits for the device."""
        step = int(self._first_bad)
        if step >= 0:
            raise DivergedError(f"the loss became NaN or infinite at optimiser step {step}")

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's outputs."""
        self.validation_outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the (B, C) logits and (B,) positions of a batch."""
        self.validation_outputs.append(self._outputs(batch))

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the (B, C) logits and (B,) positions of a batch."""
        return self._outputs(batch)

    def _outputs(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        logits = self.model(batch.images).float().cpu().numpy()
        if not np.isfinite(logits).all():  # the last update can do it, after the last finite loss
            raise DivergedError(f"outputs are NaN or infinite after {self.global_step} steps")
        return logits, batch.positions.cpu().numpy()


def _sets_rates(callback: StrategyCallback) -> bool:
    return type(callback).lr_scales is not StrategyCallback.lr_scales


def _has_penalty(callback: StrategyCallback) -> bool:
    return type(callback).penalty is not StrategyCallback.penalty
