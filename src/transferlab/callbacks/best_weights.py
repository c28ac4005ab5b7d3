"""The weights of the best validation instead of the last step's, where asked for."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from transferlab.callbacks.history import History


class BestWeights(Callback):
    """Keep a copy of the weights and buffers of the best validation, and put it back at the end.

    Args:
        history: whose curve holds the validation scores; it must stand before this callback.
        metric: name of the score, higher is better; the earlier of equals is kept.
    """

    def __init__(self, history: History, metric: str) -> None:
        self.history, self.metric = history, f"validation_{metric}"
        self.step: int | None = None
        self._best = float("-inf")
        self._state: dict[str, Any] = {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Copy the weights if this validation is better than every one before."""
        score = self.history.curve[-1][self.metric]
        if score > self._best:
            self._best, self.step = score, trainer.global_step
            self._state = {k: v.detach().clone() for k, v in pl_module.model.state_dict().items()}

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the best weights and buffers back."""
        if self._state:
            pl_module.model.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights so far, their step and their score."""
        return {"step": self.step, "best": self._best, "state": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.step, self._best = state_dict["step"], state_dict["best"]
        self._state = state_dict["state"]
