"""Scores of weights on the validation images, for callbacks that choose among weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from transferlab.callbacks.history import History
from transferlab.collectives import from_all
from transferlab.evaluation import gathered
from transferlab.refitting import refit_head


def history_of(trainer: Trainer) -> History | None:
    """Return the callback that knows the run's metric; a fit without it scores nothing."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    return next((c for c in callbacks if isinstance(c, History)), None)


def validation_score(trainer: Trainer, pl_module: Any, state: Mapping[str, Tensor]) -> float:
    """Put weights into the model and return the run's metric on the validation images.

    The images come from the trainer's own datamodule, the outputs from the module in eval mode at
    the run's precision, as in every validation; a closed-form head is fitted to the weights first.
    Every module is left in the mode that it was found in. All ranks must call this; all get the
    same score.

    Args:
        trainer: of a run, with its History and datamodule.
        pl_module: a TransferModule.
        state: all weights and buffers of its model.

    Raises:
        DivergedError: an output is NaN or infinite.
    """
    history, data = history_of(trainer), trainer.datamodule  # type: ignore[attr-defined]
    assert history is not None, "only a run's own fit has scores"
    model, device = pl_module.model, trainer.strategy.root_device
    model.to(device)
    model.load_state_dict(state)
    precision = trainer.precision_plugin
    refit_head(model, data, device, precision.forward_context())
    modes = {module: module.training for module in model.modules()}
    model.eval()
    outputs = []
    try:
        with torch.inference_mode(), precision.forward_context():
            for index, raw in enumerate(data.val_dataloader()):
                if "images" in raw:
                    raw["images"] = raw["images"].to(device)
                outputs.append(pl_module.predict_step(data.on_after_batch_transfer(raw, 0), index))
    finally:
        for module, mode in modes.items():
            module.training = mode
    found = gathered(outputs)
    positions, once = np.unique(np.concatenate([rows for _, rows in found]), return_index=True)
    logits = np.concatenate([values for values, _ in found])[once]
    score = history.scores(logits, positions)[history.metric]
    return from_all(float(score))[0]  # one number decides on all ranks
