"""One optimizer's steps on stacked parameters that differ in rate and weight decay."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

Settings = Sequence[dict[str, Any]]
LINEAR = (SGD, Adam, AdamW)
"""Optimizers whose step is their rate times what follows from the gradients alone."""


def steps_are_linear(optimizer: Optimizer) -> bool:
    """Say whether :class:`ManyRates` can take an optimizer's steps."""
    return type(optimizer) in LINEAR


class ManyRates:
    """Takes the steps that one optimizer of torch's would take, each row at a rate of its own.

    The library's optimizer steps at a rate of 1 and without decay on rows that are 0: what they
    are afterwards is the step's direction, which is then scaled row by row. A hundred heads so
    cost one call instead of a hundred. Every row is a tensor to the library, and what is done to
    all rows at once is rounded after each operation: a row's bits do not depend on its company.

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
        self._steps = [torch.zeros_like(one) for one in self.stacked]
        self._gradients = [torch.zeros_like(one) for one in self.stacked]
        rows = []
        for step, gradient in zip(self._steps, self._gradients, strict=True):
            for row, grad in zip(step.detach(), gradient.detach(), strict=True):
                row.grad = grad
                rows.append(row)
        self._optimizer = make([{"params": rows, "lr": 1.0, "weight_decay": 0.0}])
        self._decoupled = isinstance(self._optimizer, AdamW)

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by their gradients, which stay as they are."""
        rates, decays = (
            [_column(*pair, name) for pair in zip(self.stacked, self.settings, strict=True)]
            for name in ("lr", "weight_decay")
        )
        for number, value in enumerate(self.stacked):
            assert value.grad is not None
            gradient = self._gradients[number].copy_(value.grad)
            if not self._decoupled:
                gradient += value * decays[number]
            self._steps[number].zero_()
        self._optimizer.step()
        for value, step, rate, decay in zip(self.stacked, self._steps, rates, decays, strict=True):
            if self._decoupled:
                value *= 1 - rate * decay
            value += step.mul_(rate)


def _column(stacked: Tensor, rows: Settings, name: str) -> Tensor:
    """Return a setting of every row, shaped to be multiplied with the rows."""
    values = [float(row[name]) for row in rows]
    values += [0.0] * (len(stacked) - len(values))
    shape = (-1, *[1] * (stacked.ndim - 1))
    return torch.tensor(values, dtype=stacked.dtype, device=stacked.device).view(shape)
