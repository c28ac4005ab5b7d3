"""The optimizer's parameter groups and the schedules that torch does not offer in one piece."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from transferlab.errors import UserError

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


def parameter_groups(
    layers: Sequence[Sequence[tuple[str, nn.Parameter]]],
    scales: Sequence[float],
    lr: float,
    undecayed: set[str],
) -> list[dict[str, Any]]:
    """Write one optimizer group per (rate, decayed or not), with absolute rates.

    Absolute rates hold under every torch scheduler; a ``lr_scale`` that only some schedulers read
    would train all layers alike without a word. Vectors and scalars (norms, biases) and the names
    in ``undecayed`` are left out of weight decay. All parameters are in a group from the start,
    frozen ones too: thawing flips a flag and leaves the optimizer's layout alone.

    Args:
        layers: per layer group, stem first and the head last, its (name, parameter) pairs.
        scales: one factor a layer group, in (0, 1].
        lr: the head's rate.
        undecayed: names of further parameters without weight decay.

    Returns:
        groups with ``params``, ``lr``, ``layers`` (their numbers) and, where decay is
        off, ``weight_decay`` 0.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for index, (layer, scale) in enumerate(zip(layers, scales, strict=True)):
        for name, parameter in layer:
            decayed = parameter.ndim > 1 and name not in undecayed
            group = groups.setdefault(
                (scale, decayed),
                {"params": [], "lr": lr * scale, "layers": []},
            )
            if not decayed:
                group["weight_decay"] = 0.0
            group["params"].append(parameter)
            if index not in group["layers"]:
                group["layers"].append(index)
    return list(groups.values())


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float = 0.1) -> LambdaLR:
    """Raise the rate linearly over the warm-up, then lower it along half a cosine to zero.

    Args:
        optimizer: its rates are the peak.
        steps: optimiser steps in all.
        warmup: share of the steps, in [0, 1).

    Raises:
        UserError: a warm-up outside [0, 1).
    """
    if not 0 <= warmup < 1:
        raise UserError(f"scheduler.warmup={warmup}: expected a share of the budget in [0, 1).")
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)  # the first step already moves: zero would waste it
        return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(steps - rise, 1), 1.0)))

    return LambdaLR(optimizer, factor)
