"""The LightningModule: nothing in it differs between strategies."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from transferlab.callbacks.base import StrategyCallback, is_overridden
from transferlab.collectives import from_all
from transferlab.datamodule import Batch, Positions
from transferlab.errors import RunError
from transferlab.losses import ClassLoss
from transferlab.model import TransferModel
from transferlab.optim import parameter_groups
from transferlab.randomness import derive_seed, seed_generators
from transferlab.reuse import Later, Reuse

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
        compiled: whether ``torch.compile`` computes the backbone's part of the training step.

    Attributes:
        reuse: computes what is frozen once; without it that is done at every step.
    """

    def __init__(
        self,
        model: TransferModel,
        loss: ClassLoss,
        optimizer: OptimizerFactory,
        lr: float,
        scheduler: SchedulerFactory | None,
        seed: int,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.optimizer, self.lr, self.scheduler, self.seed = optimizer, lr, scheduler, seed
        self.validation_outputs: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self.validation_score: float | None = None
        self.last_loss = torch.tensor(0.0)
        self._first_bad = torch.tensor(-1)
        self.compiled = compiled
        self.reuse: Reuse | None = None
        self._features: Callable[[Tensor], Tensor] = model.features

    def what_trains_changed(self, steps: int, later: Sequence[Later]) -> None:
        """Settle how the coming steps are computed: whoever changes what trains calls this.

        The training step is compiled anew where asked for: an earlier graph would leave newly
        thawed parameters without gradients. Training has one shape of batch, so it is compiled for
        that shape alone; evaluation is never compiled.

        Args:
            steps: optimiser steps for which it stays as it is now, at the most.
            later: the phases after them, each with its steps at the most.
        """
        if self.compiled:
            torch._dynamo.reset()
            self._features = torch.compile(self.model.features, dynamic=False)
        if self.reuse is not None:
            with self.trainer.precision_plugin.forward_context():
                self.reuse.begin(self.model, self.device, steps, later)

    def strategy_callbacks(self) -> list[StrategyCallback]:
        """Return the strategy's callbacks, in the order of its YAML."""
        callbacks = getattr(self.trainer, "callbacks", [])
        return [callback for callback in callbacks if isinstance(callback, StrategyCallback)]

    def configure_optimizers(self) -> Any:
        """Build the optimizer over all parameters; strategies split and scale its groups."""
        groups = parameter_groups(self.model.named_parameters(), self.lr, self.model.undecayed())
        optimizer = self.optimizer(groups)
        if self.scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Collect what every step needs."""
        self._penalties = [c for c in self.strategy_callbacks() if is_overridden(c, "penalty")]
        self._first_bad = torch.tensor(-1, device=self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the generators from (seed, step, part, rank): a resumed run draws the same."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        seed = derive_seed(self.seed, "step", self.global_step, part, self.global_rank)
        seed_generators(seed, self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, penalties of the strategy included."""
        features = None if self.reuse is None else self.reuse.training(batch)
        if features is None:
            features = self._features(batch.images)
        loss: Tensor = self.loss(self.model.head(features), batch.labels) * self._part(batch)
        for callback in self._penalties:
            penalty = callback.penalty(self.model, features)
            if penalty is not None:
                loss = loss + penalty
        self.last_loss = loss.detach()
        # kept on the device: reading it back at every step would stall an accelerator
        bad = ~torch.isfinite(self.last_loss) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, self.global_step, self._first_bad)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradients that this step has.

        Lightning refuses to under mixed precision with a fused optimizer, for fear of a loss
        scaler; bf16 has none, and float16 with both is refused before training.
        """
        del optimizer, gradient_clip_algorithm
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def _part(self, batch: Batch) -> Tensor | float:
        """Return the factor that makes a class-weighted mean one over the whole step's images.

        Ranks and micro-batches are averaged as equals, but their images do not weigh the same.
        """
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        if self.loss.weight is None or parts == 1:
            return 1.0
        whole = self.trainer.datamodule.step_labels(self.global_step)  # type: ignore[attr-defined]
        return parts * self.loss.mass(batch.labels) / self.loss.mass(whole)

    def raise_if_diverged(self, alone: bool = False) -> None:
        """Raise DivergedError if any loss so far was NaN or infinite; this waits for the device.

        Args:
            alone: ask this rank only. Otherwise all ranks must call it, and what one of them saw
                ends them all, with the same message.
        """
        own = int(self._first_bad)
        steps = [step for step in ([own] if alone else from_all(own)) if step >= 0]
        if steps:
            raise DivergedError(f"the loss became NaN or infinite at optimiser step {min(steps)}")

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's outputs."""
        self.validation_outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the (B, C) logits and (B,) positions of a batch."""
        own = self.trainer.state.fn in (TrainerFn.FITTING, TrainerFn.VALIDATING)
        known = self.reuse.data.validation if self.reuse and own else None
        logits = self._evaluated(batch, known)
        self.validation_outputs.append(self._outputs(logits, batch))

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the (B, C) logits and (B,) positions of a batch."""
        known = None
        data: Any = getattr(self.trainer, "datamodule", None)
        predicts = self.trainer.state.fn == TrainerFn.PREDICTING  # a fit's callbacks ask too
        if self.reuse is not None and predicts and data is self.reuse.data:
            known = self.reuse.data.predicted[dataloader_idx]
        return self._outputs(self._evaluated(batch, known), batch)

    def on_predict_start(self) -> None:
        """Find out what of the prediction other runs have computed."""
        if self.reuse is not None:
            self.reuse.begin_evaluation(self.model)

    def _evaluated(self, batch: Batch, positions: Positions | None) -> Tensor:
        """Return logits; ``positions`` are those of all items of this evaluation, where known."""
        features = None
        if self.reuse is not None and positions is not None:
            features = self.reuse.evaluation(batch, positions)
        logits = self.model(batch.images) if features is None else self.model.head(features)
        return cast(Tensor, logits)

    def _outputs(
        self, logits: Tensor, batch: Batch
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return finite(logits, self.global_step), batch.positions.cpu().numpy()


def finite(logits: Tensor, steps: int) -> NDArray[np.float32]:
    """Return the logits of a model that has taken so many steps.

    Raises:
        DivergedError: one is NaN or infinite; the last update can do it, after a finite loss.
    """
    outputs: NDArray[np.float32] = logits.float().cpu().numpy()
    if not np.isfinite(outputs).all():
        raise DivergedError(f"outputs are NaN or infinite after {steps} steps")
    return outputs
