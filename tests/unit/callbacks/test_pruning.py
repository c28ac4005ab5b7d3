import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from transferlab import fitting
from transferlab.callbacks.cost import Cost
from transferlab.fitting import Fit, fit
from transferlab.planning import Plan, plan_source
from transferlab.run import execute

MakePlan = Callable[..., Plan]
SIX = ("strategy=scratch", "budget.steps=6", "trainer.validations=3", "optimizer.lr=0.01")


class StoppedError(BaseException):
    """What stands for a kill."""


class Stopper(Cost):
    """Stop before a given step."""

    stop: int | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.global_step == Stopper.stop:
            self._stop_counting()
            raise StoppedError


def below(*scores: float) -> str:
    return f"trainer.prune_below=[{','.join(map(str, scores))}]"


@pytest.fixture
def made(make_plan: MakePlan) -> Callable[..., Fit]:
    def run(*overrides: str) -> Fit:
        plan = make_plan(*SIX, *overrides)
        return fit(plan, None, plan.directory, [])

    return run


def accuracies(fitted: Fit) -> list[float]:
    return [point["validation_accuracy"] for point in fitted.history.curve]


def test_a_fit_below_the_others_ends_at_its_validation(made) -> None:
    whole, stopped = made(), made(below(2.0))
    assert [point["step"] for point in whole.history.curve] == [2, 4, 6]
    assert (whole.pruned, whole.selected_step) == (None, 6)
    assert stopped.history.curve == whole.history.curve[:1]
    assert stopped.selected_step == stopped.trainer.global_step == 2
    assert stopped.pruned == {"step": 2, "best": accuracies(whole)[0], "below": 2.0}


def test_its_best_so_far_counts_and_equals_go_on(made) -> None:
    scores = accuracies(made())
    best = max(scores[:2])
    assert made(below(scores[0], best)).pruned is None
    ended = made(below(scores[0], best + 1e-9))
    assert ended.pruned == {"step": 4, "best": best, "below": best + 1e-9}


@pytest.mark.parametrize("given", [(), (0.0,), (0.0, 0.0, 2.0)])
def test_the_last_validation_and_those_without_a_score_stop_nothing(made, given) -> None:
    fitted = made(below(*given))
    assert (fitted.pruned, fitted.selected_step) == (None, 6)


def test_a_head_that_is_fitted_in_closed_form_is_not_stopped(made) -> None:
    assert made("strategy=feature_extraction", "head=knn", below(2.0)).pruned is None


def test_a_fit_that_was_killed_is_stopped_where_it_would_have_been(
    made, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "Cost", Stopper)
    scores = accuracies(made())
    limits = below(scores[0], max(scores[:2]) + 0.1)
    whole = made(limits, "name=whole")
    plan = make_plan(*SIX, limits, "checkpoint.every_steps=1", folder=None)
    monkeypatch.setattr(Stopper, "stop", 3)  # after the first validation
    with pytest.raises(StoppedError):
        fit(plan, None, plan.directory / "again", [])
    monkeypatch.setattr(Stopper, "stop", None)
    resumed = fit(plan, None, plan.directory / "again", [])
    assert resumed.resumed
    assert resumed.pruned == whole.pruned is not None
    weights, others = (f.module.model.state_dict() for f in (resumed, whole))
    assert all(torch.equal(weights[key], others[key]) for key in others)


def test_the_record_says_where_it_was_stopped(make_plan: MakePlan) -> None:
    plan = make_plan(*SIX, below(2.0))
    record = execute(plan)
    assert record["pruned"]["step"] == record["selected_step"] == 2
    assert record["budget_steps"] == 6
    kept: dict[str, Any] = json.loads((plan.directory / "run.json").read_text())
    assert kept["pruned"] == record["pruned"]
    assert kept["metrics"]["validation"]["accuracy"] == pytest.approx(record["pruned"]["best"])
    assert execute(plan_again := make_plan(*SIX))["pruned"] is None
    assert plan_again.run_id != plan.run_id


def test_what_stops_a_run_defines_it_and_never_its_source(make_plan: MakePlan) -> None:
    source = ("source=glyphs", "source.dataset.per_class=4", "source.pretrain.budget.steps=2")
    six = [text for text in SIX if "strategy" not in text]
    chosen = [(), (below(),), (below(0.5),), (below(), "trainer.validations=2")]
    plans = [make_plan(*source, *six, *more) for more in chosen]
    assert len({plan.run_id for plan in plans}) == len(plans)
    assert "prune_below" not in plans[0].identity
    assert len({plan_source(plan.cfg).run_id for plan in plans}) == 1
