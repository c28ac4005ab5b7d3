"""What a schedule must know of a Lightning Trainer, its budget and its optimizer."""

import gc
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.optim import Optimizer

from transferlab.errors import RunError, UserError
from transferlab.reuse import Later


def only_optimizer(trainer: Trainer) -> Optimizer:
    """Return torch's optimizer of a fit that has one.

    Raises:
        UserError: there is none, or more than one.
    """
    if len(trainer.optimizers) != 1:
        raise UserError(
            f"{len(trainer.optimizers)} optimizers: a strategy's schedule needs exactly one. Let "
            "configure_optimizers return one over all parameters."
        )
    optimizer: Any = trainer.optimizers[0]
    plain: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return plain


def check_optimizer(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    trained: Collection[str],
    cycled: bool,
) -> None:
    """Find parameters that would never move, and groups without a momentum to set.

    Args:
        optimizer: of the fit.
        parameters: of the model, by name.
        trained: names of those that train at some time.
        cycled: whether the momentum is to be set.

    Raises:
        UserError: there are such.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = sorted(name for name in trained if id(parameters[name]) not in held)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"the optimizer lacks {missing[0]}{more}, which the phases train. Give it all "
            "parameters: frozen ones get no gradient, no state and no decay."
        )
    if cycled and not all("betas" in g or "momentum" in g for g in optimizer.param_groups):
        raise UserError(
            f"{type(optimizer).__name__} has neither momentum nor betas for the phases' momentum "
            "to set. Use another optimizer, or remove momentum."
        )


def budget_steps(trainer: Trainer) -> int:
    """Return the optimiser steps of the whole fit.

    Raises:
        UserError: it has no end.
    """
    steps = trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        raise UserError("phases need a budget. Give the Trainer max_steps or max_epochs.")
    return int(steps)


def steps_per_epoch(trainer: Trainer) -> float:
    """Return the optimiser steps of one pass over the training images."""
    own = getattr(getattr(trainer, "datamodule", None), "steps_per_epoch", None)
    if own is not None:
        return float(own)
    trainer.fit_loop.setup_data()
    return float(math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))


def tell_of_change(pl_module: LightningModule, steps: int, later: Sequence[Later]) -> None:
    """Tell a module that wants to know it that other parameters train now, and which then.

    Args:
        pl_module: in training.
        steps: of the phase that begins, at the most.
        later: the phases after it, each with its steps at the most.
    """
    told = getattr(pl_module, "what_trains_changed", None)
    if told is not None:
        told(steps, later)


def watched_score(trainer: Trainer, pl_module: LightningModule, monitor: str) -> float:
    """Return the score of the validation that has just ended, higher is better.

    Args:
        trainer: of the fit.
        pl_module: has it as ``validation_score``, or logs it.
        monitor: the name it is logged by.

    Raises:
        RunError: it is not logged.
    """
    own = getattr(pl_module, "validation_score", None)
    if own is not None:
        return float(own)
    if monitor not in trainer.callback_metrics:
        raise RunError(
            f"a plateau watches {monitor!r}, which the module does not log. Log it in "
            "validation_step, or set monitor."
        )
    return float(trainer.callback_metrics[monitor])


def rewrap(trainer: Trainer, pl_module: LightningModule) -> None:
    """Wrap the model for several processes again: its reducer knows what was trainable before."""
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy) or trainer.world_size < 2:
        return
    strategy.model = pl_module
    gc.collect()  # the old reducer's hooks on the parameters go with it
    strategy.configure_ddp()
