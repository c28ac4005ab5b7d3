"""Checkpoints from which a run that was killed goes on, to the same last bit."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from transferlab.checkpoints import clear_leftovers, refuse_foreign, write_checkpoint
from transferlab.collectives import Votes
from transferlab.errors import RunError
from transferlab.stopping import Stopped, stopping


class Checkpointing(Callback):
    """Save the whole state of a fit between two optimiser steps, every so often.

    It is saved at the start of a step: then the step before, its schedules and its validation
    are done, and nothing of the next has begun. It must stand before callbacks that act there.
    Under several processes rank 0 alone decides and writes. A run that is asked to stop
    (:mod:`transferlab.stopping`) saves once more before its next step, and all ranks end there
    with ``Stopped``. SIGTERM is answered with one more checkpoint where a step has just ended.

    Args:
        folder: of the run's checkpoints.
        run_id: of the run; a checkpoint of another one is refused.
        every_steps: optimiser steps between two checkpoints, or None.
        every_minutes: minutes between two checkpoints, or None.

    Attributes:
        resumed: the steps at which the run was taken up again.
    """

    def __init__(
        self, folder: Path, run_id: str, every_steps: int | None, every_minutes: float | None
    ) -> None:
        self.folder, self.run_id = folder, run_id
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self.resumed: list[int] = []
        self._step, self._time = 0, time.monotonic()
        self._votes: Votes | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse a checkpoint of another run."""
        refuse_foreign(checkpoint.get("run_id"), self.run_id, self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of where and when this process starts."""
        self._step, self._time = trainer.global_step, time.monotonic()
        if trainer.global_step:
            self.resumed.append(trainer.global_step)
        if trainer.is_global_zero:
            clear_leftovers(self.folder)
        self._votes = Votes() if stopping.possible else None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, before the first micro-batch of a step.

        Raises:
            Stopped: on every rank, if one was asked to stop; the state is saved.
        """
        begins = batch_idx % trainer.accumulate_grad_batches == 0
        if begins and self._votes is not None and self._votes.ask(stopping.asked):
            if trainer.is_global_zero and trainer.global_step != self._step:
                self._save(trainer, pl_module)
            self._votes.meet()  # a rank that left earlier would take the one that writes along
            raise Stopped
        if begins and trainer.is_global_zero and self._due(trainer.global_step):
            self._save(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no ballot under way."""
        if self._votes is not None:
            self._votes.settle()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save once more on SIGTERM; Lightning raises it between two micro-batches."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        ended = (
            batches.ready == batches.completed
            and batches.completed == trainer.global_step * trainer.accumulate_grad_batches
        )
        if isinstance(exception, SIGTERMException) and ended and trainer.is_global_zero:
            self._save(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return where the run was taken up so far."""
        return {"resumed": list(self.resumed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.resumed = list(state_dict["resumed"])

    def _due(self, step: int) -> bool:
        if step == self._step:
            return False
        by_steps = self.every_steps is not None and step - self._step >= self.every_steps
        minutes = (time.monotonic() - self._time) / 60
        return by_steps or (self.every_minutes is not None and minutes >= self.every_minutes)

    def _save(self, trainer: Trainer, pl_module: Any) -> None:
        try:  # weights that are lost are no place to go on from; all ranks hear of it elsewhere
            pl_module.raise_if_diverged(alone=True)
        except RunError:
            return
        # the Trainer's own save is a meeting of all ranks; this is rank 0's alone
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        write_checkpoint(self.folder, self.run_id, _between_batches(state))
        self._step, self._time = trainer.global_step, time.monotonic()


def _between_batches(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint in which the micro-batch that is about to begin was never asked for.

    Lightning takes back one of two counters when it resumes; the other says when to validate.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for count in (progress["total"], progress["current"]):
        count.update(dict.fromkeys(("ready", "started", "processed"), count["completed"]))
    progress["is_last_batch"] = False
    return checkpoint
