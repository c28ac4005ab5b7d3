"""A fit that was stopped goes on from its checkpoint and ends as if nothing had happened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlab import fitting
from transferlab.callbacks.cost import Cost
from transferlab.errors import UserError
from transferlab.fitting import Fit, fit
from transferlab.planning import Plan

MakePlan = Callable[..., Plan]
SETTINGS = (
    "budget.steps=12", "batch_size=8", "trainer.validations=3", "trainer.accumulate=2",
    "augmentation=light", "target.max_validation=20", "optimizer.lr=0.01",
)  # fmt: skip


class StoppedError(BaseException):
    """What stands for a kill: nothing catches it."""


class Stopper(Cost):
    """Write down what every micro-batch was, and stop before a given one."""

    stop: int | None = None
    batches: list[list[int]]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if batch_idx == Stopper.stop:
            self._stop_counting()
            raise StoppedError
        Stopper.batches.append([trainer.global_step, batch_idx, *batch.positions.tolist()])


@pytest.fixture
def make(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Fit, list[list[int]], Plan]]:
    """Fit once, stopping before the given micro-batches one process after the other."""
    monkeypatch.setattr(fitting, "Cost", Stopper)

    def run(name: str, *overrides: str, stops: tuple[int, ...] = ()) -> Any:
        for stop in (*stops, None):
            plan = make_plan(*SETTINGS, *overrides, folder=tmp_path / name)
            Stopper.stop, Stopper.batches = stop, []
            if stop is not None:
                with pytest.raises(StoppedError):
                    fit(plan, None, plan.directory, [])
        return fit(plan, None, plan.directory, []), Stopper.batches, plan

    return run


SLOW = pytest.mark.slow


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def left_behind(fitted: Fit, plan: Plan) -> dict[str, Any]:
    lines = (plan.directory / "metrics.jsonl").read_text().splitlines()
    return {
        "weights": plain(fitted.module.model.state_dict()),
        "optimizer": plain(fitted.trainer.optimizers[0].state_dict()),
        "scheduler": plain([c.scheduler.state_dict() for c in fitted.trainer.lr_scheduler_configs]),
        "callbacks": plain([
            c.state_dict() for c in fitted.module.strategy_callbacks()
        ]),
        "generator": torch.get_rng_state().tolist(),
        "curve": fitted.history.curve,
        "lines": [json.loads(line) for line in lines],
        "selected": fitted.selected_step,
        "multiply_adds": fitted.cost.training_multiply_adds,
        "trainable": fitted.cost.trainable_parameters,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "every", "stops"),
    [
        ("scratch", 3, (15,)),  # in the middle of step 7; checkpoints at 3 and 6
        pytest.param("scratch", 4, (17,), marks=SLOW),  # the checkpoint is where a validation was
        ("scratch", 1, (3, 4, 16, 23)),  # also before the last micro-batch, and on a step's start
        ("plateau_unfreezing", 3, (15,)),
        pytest.param("scratch", 100, (15,), marks=SLOW),  # no checkpoint yet: from the beginning
        ("gradual_unfreezing", 3, (15,)),
        pytest.param("lp_ft", 5, (13, 21), marks=SLOW),
        pytest.param("feature_extraction", 3, (11,), marks=SLOW),
        pytest.param("layer_decay", 3, (15,), marks=SLOW),
    ],
)
def test_a_stopped_fit_ends_like_one_that_was_not(
    make, strategy: str, every: int, stops: tuple[int, ...]
) -> None:
    overrides = (f"strategy={strategy}", f"checkpoint.every_steps={every}")
    whole, batches, plan = make("whole", *overrides)
    resumed, rest, other = make("stopped", *overrides, stops=stops)
    assert plan.run_id == other.run_id
    assert plan.directory != other.directory
    begin = stops[-1] // 2 // every * every
    assert rest == batches[2 * begin :]
    assert resumed.resumed[-1:] == ([begin] if begin else [])
    assert left_behind(resumed, other) == left_behind(whole, plan)


@pytest.mark.parametrize("stops", [(45,), (34, 71)])
def test_what_a_frozen_part_computed_counts_once_a_phase(make, stops: tuple[int, ...]) -> None:
    """Whether a process computes it, an earlier phase of it did, or it finds it on the disk."""
    overrides = (
        "strategy=gradual_unfreezing", "backbone.name=test_resnet", "augmentation=none",
        "strategy.callbacks.gradual_unfreezing.share=0.9", "target.shots=2", "budget.steps=48",
        "checkpoint.every_steps=5", f"target.split_seed={stops[0]}",
    )  # fmt: skip
    whole, _, plan = make("whole", *overrides)
    assert whole.module.reuse is not None
    resumed, _, other = make("stopped", *overrides, stops=stops)
    assert left_behind(resumed, other) == left_behind(whole, plan)
    alone, _, _ = make("alone", *overrides, "trainer.reuse_gb=0")
    assert whole.cost.training_multiply_adds < alone.cost.training_multiply_adds


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_efficientnet"])
def test_dropout_and_the_best_weights_go_on_too(make, backbone: str) -> None:
    overrides = (
        "strategy=scratch", "checkpoint.every_steps=5", "checkpoint.select=best",
        "trainer.validations=12", f"backbone.name={backbone}", "+backbone.kwargs.drop_rate=0.3",
        "+backbone.kwargs.drop_path_rate=0.3", "optimizer=sgd", "scheduler=multistep",
    )  # fmt: skip
    whole, _, plan = make("whole", *overrides)
    resumed, _, other = make("stopped", *overrides, stops=(15,))
    assert left_behind(resumed, other) == left_behind(whole, plan)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    make, make_plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("strategy=scratch", "checkpoint.every_steps=3")
    whole, _, plan = make("whole", *overrides)
    Stopper.stop = 20
    other = make_plan(*SETTINGS, *overrides, folder=tmp_path / "stopped")
    with pytest.raises(StoppedError):
        fit(other, None, other.directory, [])
    (last,) = other.directory.glob("resume/step-*9.ckpt")
    last.write_bytes(last.read_bytes()[:-7])
    capsys.readouterr()
    Stopper.stop = None
    resumed = fit(other, None, other.directory, [])
    assert resumed.resumed == [6]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert left_behind(resumed, other) == left_behind(whole, plan)


def test_a_checkpoint_of_another_run_is_refused(make, make_plan: MakePlan, tmp_path: Path) -> None:
    _, _, plan = make("one", "strategy=scratch", "checkpoint.every_steps=3", stops=(15,))
    other = make_plan(*SETTINGS, "strategy=scratch", "seed=1", folder=tmp_path / "other")
    (plan.directory / "resume").rename(_made(other.directory) / "resume")
    with pytest.raises(UserError, match=f"run {plan.run_id}, not of run {other.run_id}"):
        fit(other, None, other.directory, [])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_how_often_is_saved_does_not_name_a_run(make_plan: MakePlan) -> None:
    plans = [
        make_plan("strategy=scratch", *more)
        for more in ((), ("checkpoint.every_steps=1",), ("checkpoint.every_minutes=null",))
    ]
    assert len({plan.run_id for plan in plans}) == 1
