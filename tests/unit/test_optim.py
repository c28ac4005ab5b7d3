import math
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import timm.scheduler
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from transferlab.errors import UserError
from transferlab.optim import parameter_groups, split_groups, warmup_cosine


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


def named() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    token = nn.Parameter(torch.zeros(1, 1, 4))
    head = nn.Linear(2, 3)
    return [
        *((f"body.{n}", p) for n, p in body.named_parameters()),
        ("cls_token", token),
        *((f"head.{n}", p) for n, p in head.named_parameters()),
    ]


def test_vectors_and_named_parameters_are_left_out_of_weight_decay() -> None:
    given = named()
    groups = parameter_groups(given, 1e-3, {"cls_token"})
    optimizer = AdamW(groups, lr=1e-3, weight_decay=0.05)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in given:
        expected = 0.05 if name in ("body.0.weight", "head.weight") else 0.0
        assert decay[id(parameter)] == expected, name


def test_each_parameter_is_in_exactly_one_group_frozen_or_not() -> None:
    given = named()
    for name, parameter in given:
        parameter.requires_grad_(name.startswith("head"))
    groups = parameter_groups(given, 4e-3, set())
    assert {g["lr"] for g in groups} == {4e-3}
    listed = [id(p) for g in groups for p in g["params"]]
    assert len(listed) == len(set(listed)) == len(given)


SCALES = (1.0, 0.5, 0.25, 1.0, 0.125)


def weights(count: int = 5) -> list[nn.Parameter]:
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(3)) for _ in range(count)]


def two_groups(parameters: list[nn.Parameter], **options: Any) -> SGD:
    """Two groups of the user's own, at different rates."""
    groups = [{"params": parameters[:3], "lr": 0.4}, {"params": parameters[3:], "lr": 0.2}]
    return SGD(groups, lr=0.4, momentum=0.9, **options)


SCHEDULERS: dict[str, Callable[[SGD], Any]] = {
    "lambda": lambda o: LambdaLR(o, [lambda s: 0.9**s, lambda s: 1 / (1 + s)]),
    "multiplicative": lambda o: MultiplicativeLR(o, [lambda _: 0.9, lambda _: 0.8]),
    "cosine": lambda o: CosineAnnealingLR(o, 7),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, 4),
    "step": lambda o: StepLR(o, 3, 0.5),
    "multistep": lambda o: MultiStepLR(o, [2, 5], 0.1),
    "exponential": lambda o: ExponentialLR(o, 0.8),
    "linear": lambda o: LinearLR(o, 0.1, 1.0, 4),
    "constant": lambda o: ConstantLR(o, 0.3, 4),
    "polynomial": lambda o: PolynomialLR(o, 8, 2.0),
    "one cycle": lambda o: OneCycleLR(o, [0.4, 0.2], total_steps=12),
    "cyclic": lambda o: CyclicLR(o, [0.1, 0.05], [0.4, 0.2], step_size_up=3),
    "sequential": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, 1.0, 3), CosineAnnealingLR(o, 7)], [3]
    ),
    "chained": lambda o: ChainedScheduler([ExponentialLR(o, 0.9), ConstantLR(o, 0.5, 3)]),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=1, factor=0.5),
    "plateau with a floor": lambda o: ReduceLROnPlateau(
        o, patience=0, factor=0.5, min_lr=[0.1, 0.02]
    ),
    "ours": lambda o: warmup_cosine(o, 12, 0.25),
}


def followed(optimizer: SGD, scheduler: Any, steps: int = 10) -> list[list[float]]:
    """The rates of every parameter over some steps."""
    rates = []
    for _ in range(steps):
        own = {id(p): float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
        rates.append(list(own.values()))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return rates


def split(optimizer: SGD, schedulers: list[Any], parameters: list[nn.Parameter]) -> None:
    scale = {id(p): s for p, s in zip(parameters, SCALES, strict=True)}
    split_groups(optimizer, schedulers, kind=lambda p: scale[id(p)], scale=lambda p: scale[id(p)])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_split_rates_are_the_scale_times_the_unsplit_ones(name: str) -> None:
    plain = weights()
    whole = two_groups(plain)
    expected = followed(whole, SCHEDULERS[name](whole))
    assert len({tuple(r) for r in expected}) > 1, "a schedule that moves"
    parameters = weights()
    optimizer = two_groups(parameters)
    scheduler = SCHEDULERS[name](optimizer)
    split(optimizer, [scheduler], parameters)
    assert len(optimizer.param_groups) == 5
    found = followed(optimizer, scheduler)
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours == pytest.approx([s * r for s, r in zip(SCALES, theirs, strict=True)]), step


@pytest.mark.parametrize("name", SCHEDULERS)
def test_state_goes_round(name: str) -> None:
    """Interrupted after four steps and put into fresh objects, rates and weights go on alike."""

    def made() -> tuple[list[nn.Parameter], SGD, Any]:
        parameters = weights()
        optimizer = two_groups(parameters)
        scheduler = SCHEDULERS[name](optimizer)
        split(optimizer, [scheduler], parameters)
        return parameters, optimizer, scheduler

    kept, optimizer, scheduler = made()
    followed(optimizer, scheduler, 4)
    states = deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    values = [p.detach().clone() for p in kept]
    expected = followed(optimizer, scheduler, 4)
    parameters, again, rescheduled = made()
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    again.load_state_dict(states[0])
    rescheduled.load_state_dict(states[1])
    assert followed(again, rescheduled, 4) == expected
    for ours, theirs in zip(parameters, kept, strict=True):
        assert torch.equal(ours, theirs)


def test_splitting_without_a_scale_changes_no_rate_and_keeps_every_setting() -> None:
    parameters = weights()
    optimizer = two_groups(parameters, weight_decay=0.1)
    optimizer.param_groups[1]["weight_decay"] = 0.0
    odd = {id(p) for p in parameters[::2]}
    split_groups(optimizer, [], kind=lambda p: id(p) in odd)
    found = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(2, 0.4, 0.1), (1, 0.4, 0.1), (1, 0.2, 0.0), (1, 0.2, 0.0)]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == set(map(id, parameters))


def test_names_of_groups_and_parameters_are_split_too() -> None:
    parameters = weights()
    names = [(f"w{i}", p) for i, p in enumerate(parameters)]
    optimizer = SGD([{"params": names[:3], "name": "body"}, {"params": names[3:], "name": "head"}],
                    lr=0.1)  # fmt: skip
    split_groups(optimizer, [], kind=lambda p: p is parameters[1])
    assert [g["param_names"] for g in optimizer.param_groups] == [
        ["w0", "w2"], ["w1"], ["w3", "w4"]
    ]  # fmt: skip
    labels = [g["name"] for g in optimizer.param_groups]
    assert len(set(labels)) == 3, "LearningRateMonitor refuses two groups of one name"
    assert labels[2] == "head"


@pytest.mark.parametrize(
    "make", [lambda o: CosineAnnealingLR(o, 7, eta_min=0.1),
             lambda o: SequentialLR(o, [LinearLR(o), CosineAnnealingLR(o, 7, eta_min=0.1)], [3])],
)  # fmt: skip
def test_a_floor_that_would_level_the_ladder_is_refused(make) -> None:
    parameters = weights()
    optimizer = two_groups(parameters)
    scheduler = make(optimizer)
    with pytest.raises(UserError, match="eta_min"):
        split(optimizer, [scheduler], parameters)
    split_groups(optimizer, [scheduler], kind=id)  # unscaled, it does no harm


def test_a_scheduler_that_is_not_torchs_is_refused() -> None:
    optimizer = two_groups(weights())
    scheduler = timm.scheduler.CosineLRScheduler(optimizer, 10)
    with pytest.raises(UserError, match="CosineLRScheduler is no scheduler of torch"):
        split_groups(optimizer, [scheduler], kind=id)
