"""The optimizer's parameter groups and the schedules that torch does not offer in one piece."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from transferlab.errors import UserError

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""Keys of an optimizer group that hold a rate: torch's, and those its schedulers add."""
SCALED = ("base_lrs", "_last_lr", "min_lrs", "max_lrs")
"""Attributes of torch's schedulers that hold one rate an optimizer group."""
COPIED = ("lr_lambdas", "base_momentums", "max_momentums")
"""Attributes that hold something else for each."""


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, undecayed: set[str]
) -> list[dict[str, Any]]:
    """Sort parameters into those with and those without weight decay.

    Vectors and scalars (norms, biases) and the names in ``undecayed`` are left out of it. Frozen
    parameters are in a group too: thawing flips a flag and leaves the optimizer's layout alone.

    Args:
        named: (name, parameter) pairs.
        lr: the rate.
        undecayed: names of further parameters without weight decay.

    Returns:
        at most two groups with ``params``, ``lr`` and, where decay is off, ``weight_decay`` 0.
    """
    groups: dict[bool, dict[str, Any]] = {}
    for name, parameter in named:
        decayed = parameter.ndim > 1 and name not in undecayed
        group = groups.setdefault(decayed, {"params": [], "lr": lr})
        if not decayed:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    return list(groups.values())


def split_groups(
    optimizer: Optimizer,
    schedulers: Sequence[Any],
    kind: Callable[[nn.Parameter], Any],
    scale: Callable[[nn.Parameter], float] | None = None,
) -> None:
    """Split optimizer groups in place, before the first step, and scale their rates.

    Absolute rates hold under every torch scheduler; a ``lr_scale`` that only some schedulers
    read would train all layers alike without a word. Schedulers that exist already are told.

    Args:
        optimizer: without state.
        schedulers: of this optimizer.
        kind: parameter -> anything hashable; parameters of one group with equal values stay
            together, in their order.
        scale: parameter -> factor on its rate; the same for all of one kind.

    Raises:
        UserError: a scheduler under which scaled rates would not stay in proportion.
    """
    found = _all(schedulers)
    _check_schedulers(found, scaled=scale is not None)
    origins: list[int] = []
    factors: list[float] = []
    groups: list[dict[str, Any]] = []
    for origin, group in enumerate(optimizer.param_groups):
        for members in _members(group["params"], kind):
            factor = 1.0 if scale is None else scale(group["params"][members[0]])
            groups.append(_part(group, members, factor, len(groups)))
            origins.append(origin)
            factors.append(factor)
    optimizer.param_groups[:] = groups
    for scheduler in found:
        for name in SCALED + COPIED:
            values = getattr(scheduler, name, None)
            if isinstance(values, list | tuple):
                spread = [values[origin] for origin in origins]
                if name in SCALED:
                    spread = [v * f for v, f in zip(spread, factors, strict=True)]
                setattr(scheduler, name, spread)


def _members(
    parameters: Sequence[nn.Parameter], kind: Callable[[nn.Parameter], Any]
) -> list[list[int]]:
    kinds: dict[Any, list[int]] = {}
    for position, parameter in enumerate(parameters):
        kinds.setdefault(kind(parameter), []).append(position)
    return list(kinds.values())


def _part(
    group: dict[str, Any], members: Sequence[int], factor: float, number: int
) -> dict[str, Any]:
    """Return a group of some members of another, with its rates times a factor."""
    scaled = {k: group[k] * factor for k in RATES if isinstance(group.get(k), float | int)}
    part = {**group, **scaled, "params": [group["params"][i] for i in members]}
    if "param_names" in group:  # there if the optimizer was given named parameters
        part["param_names"] = [group["param_names"][i] for i in members]
    if "name" in group and len(members) < len(group["params"]):  # Lightning wants them distinct
        part["name"] = f"{group['name']}/{number}"
    return part


def _check_schedulers(schedulers: Sequence[Any], scaled: bool) -> None:
    for scheduler in schedulers:
        kind, floor = type(scheduler).__name__, getattr(scheduler, "eta_min", None)
        if not isinstance(scheduler, LRScheduler):
            raise UserError(
                f"{kind} is no scheduler of torch: its rates would miss groups that a strategy "
                "splits. Use one of torch.optim.lr_scheduler, or a curve of the phases."
            )
        if scaled and floor:
            raise UserError(
                f"{kind}(eta_min={floor}): all layers would end at the same rate, "
                "which undoes the layers' own. Set eta_min to 0."
            )


def _all(schedulers: Sequence[Any]) -> list[Any]:
    """Return schedulers with those inside of them (SequentialLR, ChainedScheduler)."""
    found: list[Any] = []
    for scheduler in schedulers:
        found += [scheduler, *_all(getattr(scheduler, "_schedulers", ()))]
    return found


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


def auto_schedule(optimizer: Optimizer, steps: int, warmup: float = 0.1) -> LambdaLR:
    """Return :func:`warmup_cosine`; gives way to curves that a strategy brings itself."""
    return warmup_cosine(optimizer, steps, warmup)
