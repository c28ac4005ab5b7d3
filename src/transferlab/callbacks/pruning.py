"""Stop a run that is worse than earlier ones were at the same validation."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer

from transferlab.callbacks.history import History


class Pruning(Callback):
    """End a fit whose best validation so far is below what it is given for that validation.

    What it goes by is part of the run's configuration and what it compares is in the history that
    checkpoints hold, so a run that is resumed or repeated ends where it would have. The last
    validation stops nothing.

    Args:
        history: whose curve holds the validation scores; it must stand before this callback.
        metric: name of the score, higher is better.
        below: a score for each validation, the first one first; later ones stop nothing.

    Attributes:
        pruned: the ``step`` at which the fit was stopped, its ``best`` score and what it was
            ``below``; None where it was not.
    """

    def __init__(self, history: History, metric: str, below: Sequence[float]) -> None:
        self.history, self.metric, self.below = history, f"validation_{metric}", list(below)
        self.pruned: dict[str, Any] | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Compare, on every rank alike: all of them have the whole validation's scores."""
        scores = [point[self.metric] for point in self.history.curve]
        ends = trainer.global_step >= trainer.max_steps
        if trainer.state.fn != "fit" or ends or len(scores) > len(self.below):
            return
        best, below = max(scores), self.below[len(scores) - 1]
        if best < below:
            self.pruned = {"step": trainer.global_step, "best": best, "below": below}
            trainer.should_stop = True
