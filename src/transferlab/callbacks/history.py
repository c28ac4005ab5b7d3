"""The record of a fit as it goes: JSON lines on disk, and whatever trackers were asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

Scores = Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, float]]


class History(Callback):
    """Log the loss and rates every few optimiser steps and the scores of every validation.

    Args:
        path: of the JSON lines.
        every: optimiser steps between two lines.
        scores: from (N, C) logits and (N,) positions to scores by name.
    """

    def __init__(self, path: Path, every: int, scores: Scores) -> None:
        self.path, self.every, self.scores = path, every, scores
        self.curve: list[dict[str, Any]] = []
        self._stream: IO[str] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("w")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a line every ``every`` steps; stop the fit if the loss is no longer finite."""
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        pl_module.raise_if_diverged()
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self._write(
            trainer,
            step,
            {"train_loss": float(pl_module.last_loss), "lr": max(rates), "lr_min": min(rates)},
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Score the validation outputs and keep the point of the learning curve."""
        pl_module.raise_if_diverged()
        logits = np.concatenate([logits for logits, _ in pl_module.validation_outputs])
        positions = np.concatenate([rows for _, rows in pl_module.validation_outputs])
        scores = {f"validation_{k}": v for k, v in self.scores(logits, positions).items()}
        point = {"train_loss": float(pl_module.last_loss), **scores}
        self.curve.append({"step": trainer.global_step, **point})
        self._write(trainer, trainer.global_step, scores)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the file."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file of a fit that failed: Lightning does not tear down then."""
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _write(self, trainer: Trainer, step: int, values: dict[str, float]) -> None:
        if self._stream is not None and trainer.is_global_zero:
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
            self._stream.flush()
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
