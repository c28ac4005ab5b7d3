"""The record of a fit as it goes: JSON lines on disk, and whatever trackers were asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from transferlab.collectives import average
from transferlab.evaluation import gathered
from transferlab.records import write_text

Scores = Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, float]]
Keep = Callable[[NDArray[np.float32], NDArray[np.int64]], None]
EARLY = 0.1
"""Share of the budget from which a validation says how a fit is going to end."""


class History(Callback):
    """Log the loss and rates every few optimiser steps and the scores of every validation.

    The loss is that of the whole step: the mean over its micro-batches and ranks. After every
    validation the module's ``validation_score`` is the run's metric.

    Args:
        path: of the JSON lines; rank 0 writes them.
        every: optimiser steps between two lines.
        scores: from (N, C) logits and (N,) positions to scores by name.
        metric: name of the score that the run goes by.
        keep_early: called on rank 0 with the outputs of the first validation after a tenth of
            the budget, unless that is the last one.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        scores: Scores,
        metric: str = "accuracy",
        keep_early: Keep | None = None,
    ) -> None:
        self.path, self.every, self.scores, self.metric = path, every, scores, metric
        self.keep_early = keep_early
        self.curve: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._loss = torch.tensor(float("nan"))
        self._from = 0
        self._stream: IO[str] | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take note of the step from which the run goes on."""
        self._from = int(checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file; lines after the checkpoint that the run goes on from are dropped.

        Those that stay are logged again: a tracker may lack what a killed process had not yet
        sent, and leaves out what it has.
        """
        if not trainer.is_global_zero:
            return
        lines = _lines_up_to(self.path, self._from)
        write_text(self.path, "".join(lines))
        self._stream = self.path.open("a")
        for line in lines:
            record = json.loads(line)
            _log(trainer, record.pop("step"), record)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a line every ``every`` steps; stop the fit if the loss is no longer finite."""
        self._losses.append(pl_module.last_loss)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of a step
        self._loss, self._losses = torch.stack(self._losses).mean(), []
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        pl_module.raise_if_diverged()
        groups = trainer.optimizers[0].param_groups
        rates = [group.get("effective_lr", group["lr"]) for group in groups]
        loss = {"train_loss": self._train_loss()}
        self._write(trainer, step, loss | {"lr": max(rates), "lr_min": min(rates)})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Score the validation outputs and keep the point of the learning curve."""
        pl_module.raise_if_diverged()
        outputs = gathered(pl_module.validation_outputs)
        positions = np.concatenate([rows for _, rows in outputs])
        positions, once = np.unique(positions, return_index=True)
        logits = np.concatenate([logits for logits, _ in outputs])[once]
        found = {name: float(score) for name, score in self.scores(logits, positions).items()}
        pl_module.validation_score = found[self.metric]
        scores = {f"validation_{name}": score for name, score in found.items()}
        if self.keep_early and trainer.is_global_zero and self._first_early(trainer):
            self.keep_early(logits, positions)
        point = {"train_loss": self._train_loss(), **scores}
        self.curve.append({"step": trainer.global_step, **point})
        self._write(trainer, trainer.global_step, scores)

    def state_dict(self) -> dict[str, Any]:
        """Return the curve so far."""
        return {"curve": [dict(point) for point in self.curve]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.curve = [dict(point) for point in state_dict["curve"]]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the file."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file of a fit that failed: Lightning does not tear down then."""
        self._close()

    def _first_early(self, trainer: Trainer) -> bool:
        """Whether no validation before this one came after a tenth of the budget."""
        since = EARLY * trainer.max_steps
        before = any(point["step"] >= since for point in self.curve)
        return since <= trainer.global_step < trainer.max_steps and not before

    def _train_loss(self) -> float:
        """Return the loss of the last whole step, over all ranks; all of them must ask."""
        loss = self._loss.detach().clone()
        average([loss])
        return float(loss)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _write(self, trainer: Trainer, step: int, values: dict[str, float]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
            self._stream.flush()
        _log(trainer, step, values)


def _log(trainer: Trainer, step: int, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Return the whole lines of a file of records up to a step; none for step 0."""
    kept = []
    for line in path.read_text().splitlines() if step and path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break  # cut short when the process was killed
        if record["step"] <= step:
            kept.append(line + "\n")
    return kept
