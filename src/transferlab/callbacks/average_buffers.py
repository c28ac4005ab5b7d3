"""Running statistics that are the same on every rank."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferlab.collectives import average


class AverageBuffers(Callback):
    """Average the running statistics of norm layers over ranks, after every optimiser step.

    Each rank updates them from its own images, so without this replicas would drift apart and
    rank 0's alone would be kept. The running mean is then that of the global batch; the running
    variance is the mean of the ranks' own. Layers in eval mode (frozen) are left alone, bit for
    bit, and so are synchronised ones.
    """

    def __init__(self) -> None:
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the step at which this process starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average once the optimiser has stepped."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            average(running_statistics(pl_module))


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances that this rank's own images have changed."""
    found = []
    for layer in module.modules():
        own = isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
        if own and layer.training:
            found += [b for b in layer.buffers(recurse=False) if b.is_floating_point()]
    return found
