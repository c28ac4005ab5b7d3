"""WiSE-FT: the formula, the choice, and a run whose weights are what its record says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from transferlab import fitting
from transferlab.assembling import build_model
from transferlab.callbacks import wise_ft
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.wise_ft import WiseFT, choose_alpha, interpolate
from transferlab.errors import UserError
from transferlab.fitting import fit
from transferlab.module import TransferModule
from transferlab.planning import Plan
from transferlab.run import execute

MakePlan = Callable[..., Plan]
State = dict[str, Tensor]
SETTINGS = ("strategy=wise_ft", "budget.steps=12", "batch_size=16", "optimizer.lr=0.01",
            "target.max_validation=60")  # fmt: skip


def weights_of(plan: Plan) -> State:
    return load_file(plan.directory / "checkpoints" / "last.safetensors")


def test_a_linear_model_interpolates_as_its_outputs_do() -> None:
    torch.manual_seed(0)
    models = [torch.nn.Linear(5, 3).double() for _ in range(3)]
    images = torch.randn(7, 5).double()
    for alpha in (0.0, 0.3, 0.5, 0.9, 1.0):
        models[2].load_state_dict(
            interpolate(models[0].state_dict(), models[1].state_dict(), alpha)
        )
        expected = (1 - alpha) * models[0](images) + alpha * models[1](images)
        assert torch.allclose(models[2](images), expected, atol=1e-12)


def test_norm_statistics_are_averaged_and_counters_are_not() -> None:
    start, end = torch.nn.BatchNorm1d(2).state_dict(), torch.nn.BatchNorm1d(2).state_dict()
    end = {k: v + 4 for k, v in end.items()}
    found = interpolate(start, end, 0.25)
    assert found["running_mean"].tolist() == [1.0, 1.0]
    assert found["running_var"].tolist() == [2.0, 2.0]
    assert found["num_batches_tracked"] == 4
    with pytest.raises(ValueError, match="names differ"):
        interpolate({}, end, 0.5)


def test_the_ends_are_exact() -> None:
    torch.manual_seed(1)
    start, end = {"w": 1e4 * torch.randn(1000)}, {"w": torch.randn(1000)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate(start, end, 1.0)["w"], end["w"])


@pytest.mark.parametrize(
    ("scores", "alpha"),
    [
        ([0.5, 0.7, 0.6, 0.6, 0.6], 0.25),
        ([0.7, 0.7, 0.7, 0.7, 0.7], 0.5),
        ([0.7, 0.6, 0.6, 0.6, 0.7], 1.0),
        ([0.5, 0.7, 0.6, 0.7, 0.7], 0.75),
    ],
)
def test_ties_go_to_the_middle(scores: list[float], alpha: float) -> None:
    assert choose_alpha([0.0, 0.25, 0.5, 0.75, 1.0], scores) == alpha


def test_tenths_are_tenths() -> None:
    assert WiseFT().alphas == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert choose_alpha(WiseFT().alphas, [0.0] * 4 + [1.0, 0.0, 1.0] + [0.0] * 4) == 0.6
    with pytest.raises(UserError, match=r"wise_ft\.step=0\.3"):
        WiseFT(step=0.3)


def test_a_run_keeps_the_weights_that_validation_chose(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {}
    for alpha in (0.0, 1.0):
        plan = make_plan(*SETTINGS, folder=tmp_path / str(alpha))
        with monkeypatch.context() as patch:
            patch.setattr(wise_ft, "choose_alpha", lambda *_, alpha=alpha: alpha)
            execute(plan)
        ends[alpha] = weights_of(plan)
    plan = make_plan(*SETTINGS)
    record = execute(plan)
    assert record["n_trials"] == len(record["trials"]) == 11
    (chosen,) = (trial for trial in record["trials"] if trial["chosen"])
    assert chosen["score"] == max(trial["score"] for trial in record["trials"])
    assert chosen["score"] == record["metrics"]["validation"][record["metric"]]
    expected = interpolate(ends[0.0], ends[1.0], chosen["alpha"])
    assert all(torch.equal(v, expected[k]) for k, v in weights_of(plan).items())

    probing = make_plan("strategy=lp_ft", *SETTINGS[1:])
    execute(probing)
    assert all(torch.equal(v, ends[1.0][k]) for k, v in weights_of(probing).items())
    start = build_model(plan.cfg, 10, plan.data.preprocessing.size).state_dict()
    for name, value in ends[0.0].items():  # the probe trains the head, and nothing else
        if name.endswith("num_batches_tracked"):
            continue  # of the fine-tuned weights
        assert torch.equal(value, start[name]) == (not name.startswith("head.")), name


def test_only_validation_images_are_scored(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    own = TransferModule.predict_step

    def watched(self: Any, batch: Any, *rest: Any) -> Any:
        assert not self.model.training
        seen.extend(batch.positions.tolist())
        return own(self, batch, *rest)

    monkeypatch.setattr(TransferModule, "predict_step", watched)
    plan = make_plan(*SETTINGS, "purpose=tune")
    fit(plan, None, plan.directory, [])
    assert sorted(seen) == sorted(11 * plan.data.splits.validation.tolist())


class StoppedError(BaseException):
    """What stands for a kill."""


class Stopper(Cost):
    stop: int | None = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.global_step == Stopper.stop:
            self._stop_counting()
            raise StoppedError


@pytest.mark.parametrize("stop", [4, 6, 9])  # the probe ends at 6
def test_a_run_that_was_killed_remembers_where_it_came_from(
    stop: int, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "Cost", Stopper)
    found = []
    for name, stops in (("whole", [None]), ("killed", [stop, None])):
        plan = make_plan(*SETTINGS, "checkpoint.every_steps=1", folder=tmp_path / name)
        for Stopper.stop in stops:
            if Stopper.stop is not None:
                with pytest.raises(StoppedError):
                    fit(plan, None, plan.directory, [])
        done = fit(plan, None, plan.directory, [])
        found.append((done.trials, done.module.model.state_dict()))
    assert done.resumed == [stop]
    assert found[0][0] == found[1][0]
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("strategy.callbacks.wise_ft.after=prob", r"wise_ft\.after='prob'.*probe"),
        ("strategy.callbacks.wise_ft.after=fine_tune", r"expected a phase that ends"),
        ("checkpoint.select=best", r"Set checkpoint\.select=last"),
        ("~strategy.callbacks.linear_probing", r"a callback that stands before this one"),
    ],
)
def test_what_leaves_nothing_to_average_is_refused(
    change: str, message: str, make_plan: MakePlan
) -> None:
    plan = make_plan(*SETTINGS, change)
    with pytest.raises(UserError, match=message):
        fit(plan, None, plan.directory, [])


def test_the_metric_is_part_of_what_defines_it(make_plan: MakePlan) -> None:
    plans = [make_plan(*SETTINGS, f"metric={name}") for name in ("accuracy", "macro_recall")]
    assert plans[0].run_id != plans[1].run_id
    plain = [make_plan(f"metric={name}") for name in ("accuracy", "macro_recall")]
    assert plain[0].run_id == plain[1].run_id
