"""How a model is computed, never what: recomputed activations, statistics of all ranks."""

from typing import Any, TypeVar

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferlab.errors import UserError

M = TypeVar("M", bound=nn.Module)


def recompute_activations(backbone: nn.Module, name: str, compiled: bool = False) -> None:
    """Keep fewer activations for the backward pass and compute the others again (timm's own).

    The kind is non-reentrant: the other one leaves everything behind a frozen stem without
    gradients. Running statistics are updated by the first forward pass alone, so that a run has
    the same weights and buffers, bit for bit, as without.

    Source: Chen et al., 2016 (arXiv:1604.06174).

    Args:
        backbone: a timm model.
        name: of it, for the error.
        compiled: a compiled graph keeps its statistics by itself.

    Raises:
        UserError: the model has no gradient checkpointing.
    """
    try:
        switch: Any = backbone.set_grad_checkpointing
        switch(True)
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"trainer.gradient_checkpointing=true: {name} has no gradient checkpointing. Set it "
            "to false, and save memory by trainer.accumulate."
        ) from error
    for norm in backbone.modules():
        if isinstance(norm, _BatchNorm) and not compiled:
            norm.register_forward_pre_hook(_hold_statistics)
            norm.register_forward_hook(_release_statistics, always_call=True)


def synchronise_norms(model: M) -> M:
    """Return the model with batch norms that take their statistics over the images of all ranks.

    It is timm's conversion: torch's would drop the activation of timm's fused norm layers.
    """
    found: M = convert_sync_batchnorm(model)
    return found


def _hold_statistics(norm: _BatchNorm, inputs: Any) -> None:
    """Before a norm in training is computed again, within the backward pass: stand still."""
    del inputs
    again = torch._C._current_graph_task_id() != -1
    if again and norm.training and norm.track_running_stats:
        norm.__dict__["held_momentum"], norm.momentum = norm.momentum, 0.0


def _release_statistics(norm: _BatchNorm, inputs: Any, output: Any) -> None:
    """Put back what was held; also where recomputation ended in the middle of the layer."""
    del inputs, output
    if "held_momentum" in norm.__dict__:
        norm.momentum = norm.__dict__.pop("held_momentum")
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.sub_(1)
