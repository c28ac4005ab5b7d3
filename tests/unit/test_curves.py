"""Curves against torch's, fastai's formula and figures, and the closed form of the paper."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from transferlab.curves import Constant, MomentumCycle, OneCycle, SlantedTriangular
from transferlab.errors import UserError

POINTS = [i / 1000 for i in range(1001)]


def combined_cos(pct: float, start: float, middle: float, end: float, at: float) -> float:
    """fastai.callback.schedule.combined_cos, from its definition."""

    def cos(a: float, b: float, p: float) -> float:
        return a + (1 + math.cos(math.pi * (1 - p))) * (b - a) / 2

    return cos(start, middle, at / pct) if at < pct else cos(middle, end, (at - pct) / (1 - pct))


@pytest.mark.parametrize(("pct", "div", "final"), [(0.25, 25, 1e5), (0.99, 25, 1e5), (0.3, 5, 1e5)])
def test_one_cycle_is_fastais(pct: float, div: float, final: float) -> None:
    curve, lr = OneCycle(pct, div, final), 2e-3
    expected = [combined_cos(pct, lr / div, lr, lr / final, at) for at in POINTS]
    assert [lr * curve(at) for at in POINTS] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("pct", "div", "final"), [(0.25, 25.0, 1e4), (0.5, 4.0, 10.0)])
def test_one_cycle_is_torchs(pct: float, div: float, final: float) -> None:
    steps, peak = 401, 0.3
    rise = pct * steps - 1  # torch ends the rise one step before the share
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=pct, div_factor=div,
        final_div_factor=final / div, base_momentum=0.85, max_momentum=0.95,
    )  # fmt: skip
    curve = OneCycle(rise / (steps - 1), div, final)
    momentum = MomentumCycle(rise / (steps - 1))
    for step in range(steps):
        (group,) = optimizer.param_groups
        assert peak * curve(step / (steps - 1)) == pytest.approx(group["lr"], rel=1e-6), step
        assert momentum(step / (steps - 1)) == pytest.approx(group["momentum"], rel=1e-6), step
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def test_fastais_fine_tune_has_its_published_rates() -> None:
    """fine_tune(base_lr=2e-3): one frozen cycle, then one at half the rate, 1e-5 to 1e-3."""
    frozen, whole = OneCycle(0.99, 25, 1e5), OneCycle(0.3, 5, 1e5)
    assert 2e-3 * frozen(0) == pytest.approx(8e-5)
    assert 2e-3 * frozen(0.99) == pytest.approx(2e-3)
    assert 2e-3 * frozen(1) == pytest.approx(2e-8)
    for peak in (1e-5, 1e-4, 1e-3):
        assert [peak * whole(at) for at in (0, 0.3, 1)] == pytest.approx(
            [peak / 5, peak, peak / 1e5]
        )
    momentum = MomentumCycle(0.3)
    assert [momentum(at) for at in (0, 0.3, 1)] == pytest.approx([0.95, 0.85, 0.95])
    assert all(0.85 <= momentum(at) <= 0.95 for at in POINTS)


@pytest.mark.parametrize(("cut_share", "ratio", "total"), [(0.1, 32, 1000), (0.25, 8, 400)])
def test_slanted_triangular_is_equation_3(cut_share: float, ratio: float, total: int) -> None:
    """Howard and Ruder, eq. 3: cut = floor(T * cut_frac), lr = lr_max (1 + p (r - 1)) / r."""
    cut, curve = math.floor(total * cut_share), SlantedTriangular(cut_share, ratio)
    for t in range(total):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_share - 1))
        assert curve(t / total) == pytest.approx((1 + p * (ratio - 1)) / ratio, rel=1e-9), t
    assert SlantedTriangular()(0.1) == pytest.approx(1)
    assert SlantedTriangular()(0) == SlantedTriangular()(1) == pytest.approx(1 / 32)


def test_constant() -> None:
    assert {Constant()(at) for at in POINTS} == {1.0}


@pytest.mark.parametrize(
    "make",
    [lambda: OneCycle(0), lambda: OneCycle(1), lambda: OneCycle(div=0),
     lambda: OneCycle(div_final=-1), lambda: MomentumCycle(0), lambda: MomentumCycle(high=1),
     lambda: MomentumCycle(high=0.5, low=0.6), lambda: MomentumCycle(low=-0.1),
     lambda: SlantedTriangular(0), lambda: SlantedTriangular(1), lambda: SlantedTriangular(ratio=1),
     lambda: SlantedTriangular(float("nan"))],
)  # fmt: skip
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()
