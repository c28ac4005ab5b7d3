import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from transferlab.errors import UserError
from transferlab.optim import parameter_groups, warmup_cosine


def rates(steps: int, warmup: float, lr: float = 1.0) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = warmup_cosine(optimizer, steps, warmup)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_without_warmup_it_is_half_a_cosine() -> None:
    expected = [0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(41)]
    assert rates(40, 0.0) == pytest.approx(expected, abs=1e-12)


def test_warmup_rises_linearly_to_the_peak_and_the_rest_falls_to_zero() -> None:
    found = rates(100, 0.1, lr=0.5)
    assert found[:11] == pytest.approx([0.5 * (step + 1) / 11 for step in range(11)])
    assert max(found) == found[10] == pytest.approx(0.5)
    assert found[55] == pytest.approx(0.25)  # half way down
    assert found[100] == pytest.approx(0.0, abs=1e-12)
    assert all(later < earlier for earlier, later in pairwise(found[10:]))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_every_step_of_a_tiny_budget_moves(steps: int) -> None:
    assert min(rates(steps, 0.1)[:steps]) > 0


def test_beyond_the_budget_the_rate_stays_zero() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = warmup_cosine(optimizer, 4, 0.0)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("warmup", [1.0, -0.1, 2.0])
def test_a_warmup_that_is_no_share_is_refused(warmup: float) -> None:
    with pytest.raises(UserError, match="warmup"):
        rates(10, warmup)


def layers() -> list[list[tuple[str, nn.Parameter]]]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    token = nn.Parameter(torch.zeros(1, 1, 4))
    head = nn.Linear(2, 3)
    return [
        [(f"body.{n}", p) for n, p in body.named_parameters()] + [("cls_token", token)],
        [(f"head.{n}", p) for n, p in head.named_parameters()],
    ]


def test_vectors_and_named_parameters_are_left_out_of_weight_decay() -> None:
    given = layers()
    groups = parameter_groups(given, [1.0, 1.0], 1e-3, {"cls_token"})
    optimizer = AdamW(groups, lr=1e-3, weight_decay=0.05)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for layer in given:
        for name, parameter in layer:
            expected = 0.05 if name in ("body.0.weight", "head.weight") else 0.0
            assert decay[id(parameter)] == expected, name


def test_each_parameter_is_in_exactly_one_group_with_its_absolute_rate() -> None:
    given = layers()
    groups = parameter_groups(given, [0.25, 1.0], 4e-3, set())
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    everything = [p for layer in given for _, p in layer]
    assert sum(len(g["params"]) for g in groups) == len(everything) == len(rate)
    assert {rate[id(p)] for _, p in given[0]} == {1e-3}
    assert {rate[id(p)] for _, p in given[1]} == {4e-3}
    assert [g["layers"] for g in groups] == [[0], [0], [1], [1]]


def test_frozen_parameters_are_in_a_group_too() -> None:
    given = layers()
    for _, parameter in given[0]:
        parameter.requires_grad_(False)
    groups = parameter_groups(given, [1.0, 1.0], 1e-3, set())
    assert sum(len(g["params"]) for g in groups) == 7
