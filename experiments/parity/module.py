"""The LightningModule under the callbacks of Lightning and finetuning-scheduler."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import traces
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

Scheduler = Callable[[torch.optim.Optimizer], LRScheduler]


class Traced(pl.LightningModule):
    """A model and AdamW, whose every step is traced.

    Args:
        model: its children become this module's, so ``backbone`` and ``head`` keep their names.
        rate: AdamW's.
        scheduler: makes a scheduler that steps once an epoch; none by default.
        head_only: give the optimizer the head alone, as Lightning's manual does.
    """

    def __init__(
        self,
        model: nn.Module,
        rate: float = 1e-3,
        scheduler: Scheduler | None = None,
        head_only: bool = False,
    ) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        self.rate, self.scheduler, self.head_only = rate, scheduler, head_only
        self.tracer = traces.Tracer(self)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        rows, labels = batch
        for child in self.children():
            rows = child(rows)
        return nn.functional.cross_entropy(rows, labels)

    def validation_step(self, _batch: tuple[Tensor, Tensor], _index: int) -> None:
        self.log("val_loss", torch.tensor(1.0))  # never improves

    def configure_optimizers(self) -> dict[str, Any]:
        trained = self.head.parameters() if self.head_only else self.parameters()
        optimizer = torch.optim.AdamW(
            [p for p in trained if p.requires_grad], lr=self.rate, weight_decay=0.01
        )
        self.tracer.watch(optimizer)
        if self.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}
