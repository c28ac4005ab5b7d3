"""Strategies that choose on validation, where two processes share every batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transferlab.planning import Plan
from transferlab.run import execute

MakePlan = Callable[..., Plan]
SETTINGS = ("trainer.devices=2", "budget.steps=6", "batch_size=16", "optimizer.lr=0.01",
            "target.max_validation=61")  # fmt: skip


def weights_of(plan: Plan) -> dict[str, torch.Tensor]:
    return load_file(plan.directory / "checkpoints" / "last.safetensors")


@pytest.mark.slow
def test_ranks_choose_one_depth(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("strategy=auto_depth", *SETTINGS, "strategy.callbacks.auto_depth.depths=[1,3]")
    record = execute(plan)
    assert record["status"] in ("done", "diverged"), record["reason"]
    (chosen,) = (trial["depth"] for trial in record["trials"] if trial["chosen"])
    phases = f"{{p:{{train:['last {chosen}']}}}}"
    node = f"+strategy.callbacks.p={{_target_:transferlab.callbacks.phases.Phases,phases:{phases}}}"
    other = make_plan("strategy=fine_tune", *SETTINGS, node, folder=tmp_path / "alone")
    alone = execute(other)
    expected = weights_of(other)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(plan).items())
    assert record["curve"] == alone["curve"]
    assert record["metrics"] == alone["metrics"]
    assert not (plan.directory / "resume").exists()


@pytest.mark.slow
def test_ranks_choose_one_alpha(make_plan: MakePlan) -> None:
    plan = make_plan("strategy=wise_ft", *SETTINGS, "strategy.callbacks.wise_ft.step=0.5")
    record = execute(plan)
    assert record["status"] in ("done", "diverged"), record["reason"]
    assert [trial["alpha"] for trial in record["trials"]] == [0.0, 0.5, 1.0]
    (score,) = (trial["score"] for trial in record["trials"] if trial["chosen"])
    assert score == record["metrics"]["validation"][record["metric"]]
