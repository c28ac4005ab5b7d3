"""A moving average of the weights, which is what is validated and kept."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.phases import model_of
from transferlab.errors import UserError


class EMA(StrategyCallback):
    """Average weights and buffers exponentially over the optimiser steps.

    Every validation scores the average, a run that selects the best weights selects among
    averages, and the average is what is left at the end; training itself goes on from the raw
    weights. The averaging is timm's: the average starts as the weights after the first step.
    Frozen parts keep their bits.

    Args:
        decay: share of the old average that stays at an update, in (0, 1).
        warmup: start lower: update ``n`` (from 1) keeps ``min(decay, 1 - n ** (-2/3))``, so that a
            short run is not an average over its first steps.

    Raises:
        UserError: a decay outside (0, 1).
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 < decay < 1:
            raise UserError(f"ema.decay={decay}: expected a number in (0, 1).")
        self.decay, self.warmup = decay, warmup
        self._average: ModelEmaV3 | None = None
        self._updates = 0
        self._step = 0
        self._swapped = False
        self._restored: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit; Lightning gives back a checkpoint's state after this."""
        if stage == "fit":
            self._updates, self._restored = 0, {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the model, or take the average of an interrupted run back."""
        model = model_of(pl_module)
        for name, parameter in model.named_parameters():
            if parameter.itemsize < 4:
                raise UserError(
                    f"ema can't average {name} in {parameter.dtype}: rounding would swallow small "
                    "updates. Set trainer.precision=bf16-mixed or 32-true."
                )
        average = ModelEmaV3(model, decay=self.decay, use_warmup=self.warmup)
        if self._restored:
            average.module.load_state_dict(self._restored)
            self._restored = {}
        self._average, self._swapped = average, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the step at which this process starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update once the optimiser has stepped, which several micro-batches may share."""
        if trainer.global_step == self._step or self._average is None:
            return
        self._step = trainer.global_step
        self._updates += 1
        self._average.update(model_of(pl_module), step=self._updates)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place, if there is one yet."""
        if self._average is not None and self._updates and not trainer.sanity_checking:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back, after every callback that looks at the end of an epoch."""
        if self._swapped:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the raw weights back in a validation that was cut short: training resumes there.

        The tensors in the checkpoint are the model's own, so that they follow.
        """
        if self._swapped:
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        if self._average is not None and self._updates:
            for own, averaged in self._pairs(pl_module):
                own.copy_(averaged)
        self._average = None

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its count of updates."""
        average = {} if self._average is None else self._average.module.state_dict()
        return {"updates": self._updates, "average": dict(average)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; the average itself waits for the model."""
        self._updates = int(state_dict["updates"])
        self._restored = dict(state_dict["average"])

    def _swap(self, pl_module: LightningModule) -> None:
        self._swapped = not self._swapped
        for own, averaged in self._pairs(pl_module):
            kept = own.clone()
            own.copy_(averaged)
            averaged.copy_(kept)

    def _pairs(self, pl_module: LightningModule) -> list[tuple[Tensor, Tensor]]:
        """Return the tensors of the model and of its average that differ.

        An average of equal numbers is equal, but it can turn -0 into 0: frozen parts stay apart.
        """
        average: nn.Module = self._average.module  # type: ignore[union-attr]
        own, averaged = model_of(pl_module).state_dict(), average.state_dict()
        with torch.no_grad():
            pairs = [(own[name].detach(), averaged[name].detach()) for name in own]
            return [(one, other) for one, other in pairs if not torch.equal(one, other)]
