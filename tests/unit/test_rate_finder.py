"""The search for a rate: what it tests is the run, and it leaves nothing behind."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from transferlab import rate_finder
from transferlab.config import config_folder
from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.rate_finder import RateCurve, RisingRates, find_rate, write_curve
from transferlab.run import execute

MakePlan = Callable[..., Plan]
Rates = list[list[tuple[float, float]]]
"""Of every step and optimizer group: the rate that acted, and the one put back; 0 is frozen."""
VIT = ("backbone=timm", "backbone.name=test_vit", "backbone.image_size=32")
OWN = (
    "+strategy.callbacks.p._target_=transferlab.callbacks.phases.Phases",
    "+strategy.callbacks.p.phases={a:{train:[all],rates:{head:10.0},"
    "curve:{_target_:transferlab.curves.OneCycle},warmup:{length:{steps:50}}}}",
)
"""Phases with a factor, a curve and a warm-up of their own."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_finder, "POINTS", 6)


@pytest.fixture
def searched(
    short: None, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Plan, RateCurve, Rates]]:
    """Search under some overrides, looking at the optimizer's groups after every step."""
    seen: Rates = []
    original = RisingRates.on_train_batch_end

    def watch(self: RisingRates, trainer: Any, *rest: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        seen.append([(group["effective_lr"], group["lr"]) for group in groups])
        original(self, trainer, *rest)

    def search(*overrides: str) -> tuple[Plan, RateCurve, Rates]:
        monkeypatch.setattr(RisingRates, "on_train_batch_end", watch)
        plan = make_plan(*overrides)
        curve = find_rate(plan, None)
        assert len(seen) == len(curve.rates) == 6
        return plan, curve, seen

    return search


@pytest.mark.parametrize("strategy", ["fine_tune", "layer_decay"])
def test_every_group_keeps_its_ratio_to_the_head_at_every_step(strategy: str, searched) -> None:
    plan, curve, seen = searched(f"strategy={strategy}")
    nominal = float(plan.cfg.optimizer.lr)
    for rate, groups in zip(curve.rates, seen, strict=True):
        assert max(effective for effective, _ in groups) == pytest.approx(rate)
        for effective, restored in groups:
            assert effective / rate == pytest.approx(restored / nominal)
    distinct = {round(effective / curve.rates[0], 9) for effective, _ in seen[0]}
    assert (len(distinct) > 3) == (strategy == "layer_decay")


def test_factors_hold_and_curves_and_warmups_give_way(searched) -> None:
    _, curve, seen = searched(*OWN)
    for rate, groups in zip(curve.rates, seen, strict=True):
        assert {round(effective / rate, 6) for effective, _ in groups} == {1.0, 10.0}


def test_a_search_thaws_as_the_run_does(searched) -> None:
    _, curve, seen = searched("strategy=gradual_unfreezing", "budget.steps=6")
    trained = [sum(effective > 0 for effective, _ in groups) for groups in seen]
    assert trained == sorted(trained)
    assert trained[0] < trained[-1]
    for rate, groups in zip(curve.rates, seen, strict=True):
        assert all(effective in (0.0, pytest.approx(rate)) for effective, _ in groups)


@pytest.mark.usefixtures("short")
def test_a_search_is_of_this_run_and_leaves_no_trace(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make_plan("augmentation=light", folder=tmp_path / "one")
    record = execute(undisturbed)
    plan = make_plan("augmentation=light", folder=tmp_path / "two")
    config = plan.cfg.copy()
    read: list[int] = []
    images = ImageStore.images
    monkeypatch.setattr(
        ImageStore, "images", lambda self, rows: read.extend(rows.tolist()) or images(self, rows)
    )
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    curve = find_rate(plan, None)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert plan.cfg == config
    assert not (tmp_path / "two").exists()
    assert read
    assert not set(read) & set(plan.data.splits.test.tolist())
    again = execute(plan)
    assert again["metrics"] == record["metrics"]
    one, two = (
        load_file(next((made.directory / "checkpoints").glob("*.safetensors")))
        for made in (undisturbed, plan)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = (undisturbed.directory / "metrics.jsonl").read_text().splitlines()
    first = next(json.loads(line) for line in lines if "train_loss" in line)
    assert curve.losses[0] == pytest.approx(first["train_loss"])


@pytest.mark.usefixtures("short")
def test_the_parts_of_several_devices_are_taken_in_turn(make_plan: MakePlan) -> None:
    plan = make_plan(*VIT)
    both = replace(plan, cfg=plan.cfg.copy())
    both.cfg.trainer.devices = 2
    alone, shared = find_rate(plan, None), find_rate(both, None)
    assert shared.losses == pytest.approx(alone.losses, rel=1e-3)


def test_a_search_ends_where_the_loss_explodes_and_suggests_a_rate_before(
    make_plan: MakePlan,
) -> None:
    plan = make_plan(*VIT, "optimizer=sgd", "target.shots=20", "batch_size=32")
    curve = find_rate(plan, None)
    assert len(curve.rates) == len(curve.losses) <= 100
    assert all(math.isfinite(loss) for loss in curve.losses)
    assert curve.rate is not None
    assert 1e-4 < curve.rate < 1


@pytest.mark.slow
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem
        for path in (config_folder() / "strategy").glob("[a-z]*.yaml")
        if "???" not in path.read_text()  # a soup of runs that the user names
    ),
)
def test_a_rate_can_be_searched_under_every_strategy(name: str, make_plan: MakePlan) -> None:
    curve = find_rate(make_plan(f"strategy={name}", "budget.steps=60"), None)
    assert len(curve.losses) == 6


def test_a_head_that_takes_no_steps_has_no_rate(make_plan: MakePlan) -> None:
    with pytest.raises(UserError, match="nothing to search"):
        find_rate(make_plan("head=knn", "strategy=feature_extraction"), None)


def test_a_curve_is_written_as_lines_and_as_a_picture(tmp_path: Path) -> None:
    rates = np.geomspace(1e-7, 10, 50).tolist()
    losses = [2.3 - 0.03 * k for k in range(40)] + [3.0 + k for k in range(10)]
    write_curve(RateCurve(rates, losses, 20, True), tmp_path / "rates" / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rates" / "a.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == losses
    assert [line["lr"] for line in lines] == rates
    assert [line["step"] for line in lines if line["suggested"]] == [20]
    with Image.open(tmp_path / "rates" / "a.png") as picture:
        assert picture.width > 600
