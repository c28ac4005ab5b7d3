"""What a strategy's callback may do beyond Lightning's own hooks."""

from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from transferlab.backbones.groups import Granularity
from transferlab.model import TransferModel


class StrategyCallback(Callback):
    """A named part of a strategy; every method has a neutral default.

    What is trainable and at which rate is a pure function of the optimiser step, never state: a
    run that is started again anywhere computes the same.
    """

    def lr_scales(self, model: TransferModel, layers: int) -> list[float]:
        """Return the rate of each of the layers as a factor on the head's, stem first."""
        del model
        return [1.0] * layers

    def penalty(self, model: TransferModel) -> Tensor | None:
        """Return a scalar that is added to the loss of every step, or None."""
        del model
        return None

    def trains_backbone(self) -> bool:
        """Say whether any part of the backbone trains at any time under this callback."""
        return True


class Freezing(StrategyCallback):
    """Base of callbacks that keep the lower layer groups frozen for a while or for good."""

    groups: Granularity = "stages"

    def first_trained(self, step: int, steps: int, groups: int) -> int:
        """Return the first group that trains at an optimiser step.

        Args:
            step: optimiser steps taken so far, in [0, steps].
            steps: the whole budget.
            groups: how many there are, the head (number ``groups - 1``) included.

        Returns:
            0 (all train) to groups - 1 (the head alone).
        """
        raise NotImplementedError

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the state that belongs to the step at which this process starts or resumes."""
        self._apply(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Apply the state that belongs to the coming optimiser step."""
        self._apply(trainer, pl_module)

    def _apply(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = cast(TransferModel, pl_module.model)
        first = self.first_trained(
            trainer.global_step, trainer.max_steps, model.group_count(self.groups)
        )
        model.train_from(first, self.groups)
