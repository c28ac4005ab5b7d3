"""Steps of many settings at once are the steps of torch's optimizers, one a setting."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from transferlab.many_rates import ManyRates, steps_are_linear

SETTINGS = [(0.1, 0.0), (0.01, 0.1), (0.003, 0.5), (0.0, 0.2)]
MADE: dict[str, Any] = {
    "sgd": partial(SGD, momentum=0.9, nesterov=True),
    "plain sgd": SGD,
    "adam": partial(Adam, betas=(0.8, 0.95)),
    "adamw": partial(AdamW, eps=1e-6),
    "fused adamw": partial(AdamW, fused=True),
    "amsgrad": partial(AdamW, amsgrad=True),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_every_row_goes_where_its_own_optimizer_takes_it(make: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(len(SETTINGS) + 1, 3, 5, generator=draw, dtype=torch.float64)
    stacked = start.clone().requires_grad_()
    rows = [{"lr": rate, "weight_decay": decay} for rate, decay in SETTINGS]
    many = ManyRates([stacked], [rows], make)
    alone = [start[i].clone().requires_grad_() for i in range(len(SETTINGS))]
    single: list[Optimizer] = [
        make([one], lr=rate, weight_decay=decay)
        for one, (rate, decay) in zip(alone, SETTINGS, strict=True)
    ]
    for step in range(30):
        gradient = torch.randn(start.shape, generator=draw, dtype=torch.float64)
        stacked.grad = gradient.clone()
        for i, optimizer in enumerate(single):
            alone[i].grad = gradient[i].clone()
            rows[i]["lr"] = optimizer.param_groups[0]["lr"] = SETTINGS[i][0] * (1 - step / 30)
            optimizer.step()
        many.step()
        assert torch.equal(stacked.grad, gradient)
    for i, one in enumerate(alone):
        torch.testing.assert_close(stacked[i], one, rtol=1e-9, atol=1e-12)
    assert torch.equal(stacked[-1], start[-1]), "rows without settings stand still"


def test_other_optimizers_are_left_to_themselves() -> None:
    parameter = torch.zeros(1, requires_grad=True)
    assert steps_are_linear(AdamW([parameter]))
    assert not steps_are_linear(RMSprop([parameter]))
