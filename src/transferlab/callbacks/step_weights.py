"""The weights of every validation, where ``checkpoint.keep=all`` asks for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from transferlab.backbones.weights import save_weights

FOLDER = "checkpoints/steps"
"""Where they lie in a run's directory."""


class StepWeights(Callback):
    """Write the weights that each validation scores to ``step-<optimiser step>.safetensors``.

    Rank 0 writes. A run that goes on after it was killed writes those once more that it validates
    once more, with the same bits.

    Args:
        folder: for the files.
        notes: of the run, for their metadata.
    """

    def __init__(self, folder: Path, notes: Mapping[str, Any]) -> None:
        self.folder, self.notes = folder, notes

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write what was just scored."""
        if trainer.is_global_zero:
            step = trainer.global_step
            path = self.folder / f"step-{step:010d}.safetensors"
            save_weights(path, pl_module.model.state_dict(), {**self.notes, "step": step})
