"""Keep a closed-form head in step with the backbone below it."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from transferlab.datamodule import TransferDataModule
from transferlab.refitting import refit_head


class Refit(Callback):
    """Fit the head to the training features at the start, before every validation and at the end.

    It stands behind all callbacks that change weights at those moments, so that the head fits the
    weights that are measured. A resumed run goes on with the head that was saved, as one without
    interruption would.

    Args:
        data: whose training images are used.
        once: the backbone never changes, so that one refit is enough.
    """

    def __init__(self, data: TransferDataModule, once: bool = False) -> None:
        self.data, self.once = data, once
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Fit the head before the first step."""
        if trainer.global_step == 0:
            self._refit(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Fit the head to the features as they are now."""
        self._refit(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Fit the head to the features of the weights that stay."""
        self._refit(trainer, pl_module)

    def _refit(self, trainer: Trainer, pl_module: Any) -> None:
        if self.once and self._done:
            return
        self._done = True
        device = trainer.strategy.root_device
        known = getattr(pl_module, "reuse", None) if self.once else None
        precision = trainer.precision_plugin.forward_context()
        refit_head(pl_module.model, self.data, device, precision, known)
