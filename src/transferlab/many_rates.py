"""One optimizer's steps on stacked parameters that differ in rate and weight decay."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

Settings = Sequence[dict[str, Any]]
LINEAR = (SGD, Adam, AdamW)
"""Optimizers whose step is their rate times what follows from the gradients alone."""
VECTOR = 64
"""Values: a multiple of what a processor computes at once, and of the fused kernels' unit."""


def steps_are_linear(optimizer: Optimizer) -> bool:
    """Say whether :class:`ManyRates` can take an optimizer's steps."""
    return type(optimizer) in LINEAR


class ManyRates:
    """Takes the steps that one optimizer of torch's would take, each row at a rate of its own.

    The library's optimizer steps at a rate of 1 and without decay on a tensor of zeros: what is
    there afterwards is the step's direction, which is then scaled row by row. A hundred heads so
    cost one call on one tensor. Each of its rows holds all values of one head, filled up to whole
    vectors of the processor, and what is done to all rows at once is rounded after each operation:
    a row's bits do not depend on its company (under the fused kernels, which share work out by
    whole vectors; others agree to rounding).

    Args:
        stacked: (G, ...) parameters with gradients, which are changed in place alone.
        settings: for each of them, ``lr`` and ``weight_decay`` of its first rows, read at every
            step; rows beyond stand still.
        make: the optimizer of torch's; its own rate and decay count for nothing.
    """

    def __init__(
        self,
        stacked: Sequence[Tensor],
        settings: Sequence[Settings],
        make: Callable[[list[dict[str, Any]]], Optimizer],
    ) -> None:
        self.stacked, self.settings = list(stacked), list(settings)
        sizes = [one[0].numel() for one in self.stacked]
        filled = -(-sum(sizes) // VECTOR) * VECTOR - sum(sizes)
        first = self.stacked[0].detach()
        self._step = first.new_zeros(len(first), sum(sizes) + filled)
        self._step.grad = torch.zeros_like(self._step)
        self._steps = torch.split(self._step, [*sizes, filled], dim=1)
        self._gradients = torch.split(self._step.grad, [*sizes, filled], dim=1)
        self._optimizer = make([{"params": [self._step], "lr": 1.0, "weight_decay": 0.0}])
        self._decoupled = isinstance(self._optimizer, AdamW)

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by their gradients, which stay as they are."""
        rates, decays = (
            [_column(*pair, name) for pair in zip(self.stacked, self.settings, strict=True)]
            for name in ("lr", "weight_decay")
        )
        values = [one.view(len(one), -1) for one in self.stacked]
        for number, (one, value) in enumerate(zip(self.stacked, values, strict=True)):
            assert one.grad is not None
            gradient = self._gradients[number].copy_(one.grad.view_as(value))
            if not self._decoupled:
                gradient += value * decays[number]
        self._step.zero_()
        self._optimizer.step()
        for value, step, rate, decay in zip(values, self._steps, rates, decays, strict=False):
            if self._decoupled:
                value *= 1 - rate * decay
            value += step.mul_(rate)


def _column(stacked: Tensor, rows: Settings, name: str) -> Tensor:
    """Return (G, 1) values of a setting."""
    values = [float(row[name]) for row in rows]
    values += [0.0] * (len(stacked) - len(values))
    return torch.tensor(values, dtype=stacked.dtype, device=stacked.device)[:, None]
