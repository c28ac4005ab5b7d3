"""One candidate a depth: the run is the chosen one's, the cost is that of all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transferlab import auto_depth, fitting
from transferlab.auto_depth import fit
from transferlab.callbacks.auto_depth import AutoDepth
from transferlab.callbacks.cost import Cost
from transferlab.errors import UserError
from transferlab.fitting import Fit
from transferlab.fitting import fit as fit_once
from transferlab.module import DivergedError
from transferlab.planning import Plan
from transferlab.run import execute
from transferlab.stats.one_standard_error import OneStandardError

MakePlan = Callable[..., Plan]
STRATEGY = "strategy=auto_depth"
SETTINGS = ("budget.steps=10", "batch_size=16", "optimizer.lr=0.01", "target.max_validation=60",
            "strategy.callbacks.auto_depth.depths=[1,2,6]", "trainer.validations=2")  # fmt: skip


def alone(make_plan: MakePlan, depth: int, folder: Path) -> tuple[Plan, Fit]:
    """A run in which the top layer groups train, by the schedule language."""
    phases = f"{{p:{{train:['last {depth}']}}}}"
    node = f"+strategy.callbacks.p={{_target_:transferlab.callbacks.phases.Phases,phases:{phases}}}"
    given = [s for s in SETTINGS if "auto_depth" not in s]
    plan = make_plan("strategy=fine_tune", *given, node, folder=folder)
    return plan, fit_once(plan, None, plan.directory, [])


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_the_run_is_that_of_the_chosen_depth_alone(
    depth: int, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = auto_depth.one_standard_error

    def forced(*args: Any, **kwargs: Any) -> OneStandardError:
        rule = own(*args, **kwargs)
        return OneStandardError((1, 2, 6).index(depth), *list(vars(rule).values())[1:])

    monkeypatch.setattr(auto_depth, "one_standard_error", forced)
    plan = make_plan(STRATEGY, *SETTINGS)
    found = fit(plan, None, plan.directory, [])
    other, expected = alone(make_plan, depth, tmp_path / "alone")
    state = expected.module.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in found.module.model.state_dict().items())
    assert found.history.curve == expected.history.curve
    lines = [(p.directory / "metrics.jsonl").read_text() for p in (plan, other)]
    assert lines[0] == lines[1]
    assert found.cost.trainable_parameters == expected.cost.trainable_parameters
    assert [t["chosen"] for t in found.trials] == [d == depth for d in (1, 2, 6)]


def test_every_depth_is_a_trial_and_costs(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(STRATEGY, *SETTINGS)
    record = execute(plan)
    trials = record["trials"]
    assert record["n_trials"] == 3
    assert [trial["depth"] for trial in trials] == [1, 2, 6]
    assert [trial["groups"] for trial in trials[:2]] == [["head"], ["layer4", "head"]]
    (chosen,) = (trial for trial in trials if trial["chosen"])
    best = max(trial["score"] for trial in trials)
    for trial in trials:
        assert trial["behind"] == pytest.approx(best - trial["score"])
        if trial["depth"] < chosen["depth"]:
            assert trial["behind"] > trial["se_behind"]
    assert chosen["behind"] <= chosen["se_behind"] + 1e-12
    assert chosen["score"] == record["metrics"]["validation"]["accuracy"]
    counts = [alone(make_plan, depth, tmp_path / str(depth))[1].cost for depth in (1, 2, 6)]
    total = sum(cost.training_multiply_adds for cost in counts)
    assert record["cost"]["training_multiply_adds"] == total
    seconds = sum(trial["fit_seconds"] for trial in trials)
    assert record["cost"]["fit_seconds"] == pytest.approx(seconds)
    assert record["budget_steps"] == 10
    left = {str(p.relative_to(plan.directory)) for p in plan.directory.rglob("*") if p.is_file()}
    assert left - {".run.lease.000001"} == {
        "run.json", "config.yaml", "predictions.parquet", "metrics.jsonl", "ledger.jsonl",
        "checkpoints/last.safetensors", "card.json", "card.md",
    }  # fmt: skip
    assert len(list(plan.directory.parent.iterdir())) == 1


def test_all_depths_are_the_layer_groups(make_plan: MakePlan) -> None:
    plan = make_plan(STRATEGY)
    parts, depths = auto_depth._candidates(plan, "auto_depth")
    assert depths == [1, 2, 3, 4, 5, 6]
    assert auto_depth.number_of_fits(plan) == 6
    assert parts.groups[-1].name == "head"
    deep = (STRATEGY, "backbone=convnext_atto", "backbone.image_size=32")
    stages, blocks = (make_plan(*deep, f"strategy.groups={unit}") for unit in ("stages", "blocks"))
    assert auto_depth.number_of_fits(stages) < auto_depth.number_of_fits(blocks)
    assert auto_depth.number_of_fits(make_plan()) == 1


class StoppedError(BaseException):
    """What stands for a kill."""


class Stopper(Cost):
    fits = 0
    stop: tuple[int, int] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        Stopper.fits += 1

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if (Stopper.fits, trainer.global_step) == Stopper.stop:
            self._stop_counting()
            raise StoppedError


def test_a_run_that_was_killed_goes_on_inside_its_candidate(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "Cost", Stopper)
    saving = "checkpoint.every_steps=4"
    whole = make_plan(STRATEGY, *SETTINGS, saving, folder=tmp_path / "whole")
    expected = fit(whole, None, whole.directory, [])
    killed = make_plan(STRATEGY, *SETTINGS, saving, folder=tmp_path / "killed")
    Stopper.fits, Stopper.stop = 0, (2, 6)
    with pytest.raises(StoppedError):
        fit(killed, None, killed.directory, [])
    Stopper.fits, Stopper.stop = 0, None
    found = fit(killed, None, killed.directory, [])
    assert found.resumed == [8, 4]  # what the first did after its last checkpoint, and the second

    def plain(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in trial.items() if k != "fit_seconds"} for trial in trials]

    assert plain(found.trials) == plain(expected.trials)
    assert found.cost.training_multiply_adds == expected.cost.training_multiply_adds
    state = expected.module.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in found.module.model.state_dict().items())
    assert found.history.curve == expected.history.curve


def test_a_candidate_that_diverges_is_a_trial_without_a_score(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*depths: int) -> Callable[..., Fit]:
        def fitted(plan: Plan, weights: Any, directory: Path, loggers: Any) -> Fit:
            if int(directory.name.removeprefix("depth-")) in depths:
                raise DivergedError("the loss became NaN or infinite at optimiser step 3")
            return fit_once(plan, weights, directory, loggers)

        return fitted

    plan = make_plan(STRATEGY, *SETTINGS)
    monkeypatch.setattr(auto_depth, "fit_once", diverging(2, 6))
    found = fit(plan, None, plan.directory, [])
    assert [trial["chosen"] for trial in found.trials] == [True, False, False]
    assert [trial["score"] is None for trial in found.trials] == [False, True, True]
    assert "NaN" in found.trials[2]["reason"]
    monkeypatch.setattr(auto_depth, "fit_once", diverging(1, 2, 6))
    with pytest.raises(DivergedError):
        fit(plan, None, plan.directory, [])


def test_patients_are_counted_and_not_their_images(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(STRATEGY)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(auto_depth, "one_standard_error", lambda *_, **k: seen.update(k))
    groups = np.arange(len(plan.data.store)) // 3
    data = auto_depth.replace(plan.data, groups=groups)
    validation = plan.data.splits.validation
    auto_depth._judge(auto_depth.replace(plan, data=data), [np.ones(len(validation), dtype=bool)])
    assert seen["groups"].tolist() == groups[validation].tolist()
    assert seen["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("depths", "message"),
    [("[1,9]", "the model has 6 layer groups"), ("[]", "expected all"), ("[0,1]", "from 1")],
)
def test_depths_that_no_model_has_are_refused(
    depths: str, message: str, make_plan: MakePlan
) -> None:
    def made() -> None:
        plan = make_plan(STRATEGY, f"strategy.callbacks.auto_depth.depths={depths}")
        fit(plan, None, plan.directory, [])

    with pytest.raises(UserError, match=message):
        made()


def test_alone_it_is_no_fit(make_plan: MakePlan) -> None:
    plan = make_plan(STRATEGY)
    with pytest.raises(UserError, match="use Phases"):
        fit_once(plan, None, plan.directory, [])
    assert not AutoDepth([1]).trains_backbone()
    assert AutoDepth().trains_backbone()


def test_trackers_see_the_chosen_candidate(make_plan: MakePlan) -> None:
    class Logger:
        def __init__(self) -> None:
            self.lines: list[dict[str, Any]] = []

        def log_metrics(self, values: dict[str, Any], step: int) -> None:
            self.lines.append({"step": step, **values})

    logger = Logger()
    plan = make_plan(STRATEGY, *SETTINGS)
    fit(plan, None, plan.directory, [logger])  # type: ignore[list-item]
    text = (plan.directory / "metrics.jsonl").read_text()
    assert logger.lines == [json.loads(line) for line in text.splitlines()]
