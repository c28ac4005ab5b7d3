from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from transferlab import fitting
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.ema import EMA
from transferlab.callbacks.replica_guard import checksum
from transferlab.errors import UserError
from transferlab.fitting import Fit, fit

State = dict[str, Tensor]
EMA_NODE = "+strategy.callbacks.ema._target_=transferlab.callbacks.ema.EMA"


class StoppedError(BaseException):
    """What stands for a kill."""


def copied(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


class Watcher(Cost):
    """Keep the weights that a step left, that the next began with, and that were validated."""

    stop: int | None = None

    def __init__(self, *energy: str) -> None:
        super().__init__(*energy)
        self.raw: dict[int, State] = {}
        self.begun: dict[int, State] = {}
        self.validated: dict[int, State] = {}
        Watcher.last = self

    last: "Watcher"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.global_step == Watcher.stop:
            self._stop_counting()
            raise StoppedError
        self.begun.setdefault(trainer.global_step, copied(pl_module.model))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.raw.setdefault(trainer.global_step, copied(pl_module.model))

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.validated[trainer.global_step] = copied(pl_module.model)


@pytest.fixture
def watched(
    make_plan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Fit, Watcher]]:
    def run(
        *overrides: str, stop: int | None = None, weights: State | None = None, name: str = "run"
    ) -> tuple[Fit, Watcher]:
        monkeypatch.setattr(fitting, "Cost", Watcher)
        monkeypatch.setattr(Watcher, "stop", stop)
        plan = make_plan("optimizer.lr=0.01", *overrides, folder=tmp_path / name)
        return fit(plan, weights, plan.directory, []), Watcher.last

    return run


def same(one: State, other: State) -> bool:
    return all(checksum(one[k]) == checksum(other[k]) for k in one.keys() | other.keys())


@pytest.mark.parametrize(("decay", "warmup"), [(0.5, False), (0.999, True), (0.4, True)])
def test_the_average_is_the_recursion_over_the_steps(watched, decay: float, warmup: bool) -> None:
    fitted, seen = watched(
        "strategy=ema", f"strategy.callbacks.ema.decay={decay}",
        f"strategy.callbacks.ema.warmup={warmup}", "budget.steps=4", "trainer.validations=2",
        "trainer.accumulate=2",
    )  # fmt: skip
    average = {k: v.double() for k, v in seen.raw[1].items()}
    steps = {1: average}
    for step in range(2, 5):
        keep = min(decay, 1 - step ** (-2 / 3)) if warmup else decay
        average = {k: keep * v + (1 - keep) * seen.raw[step][k] for k, v in average.items()}
        steps[step] = average
    final = fitted.module.model.state_dict()
    for step, found in ((2, seen.validated[2]), (4, seen.validated[4]), (4, final)):
        assert any("running_var" in name for name in found)
        for name, value in found.items():
            if value.is_floating_point():
                torch.testing.assert_close(value, steps[step][name].float(), rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(value, seen.raw[step][name])
    assert not same(seen.validated[2], seen.raw[2])
    (callback,) = (c for c in fitted.trainer.callbacks if isinstance(c, EMA))
    assert callback.state_dict()["updates"] == 4, "one an optimiser step, not one a micro-batch"


def test_training_goes_on_from_the_raw_weights(watched) -> None:
    _, seen = watched("strategy=ema", "budget.steps=4", "trainer.validations=4")
    _, plain = watched("strategy=fine_tune", "budget.steps=4", "trainer.validations=4", name="b")
    for step in (1, 2, 3):
        assert same(seen.begun[step], seen.raw[step])
        assert same(seen.raw[step], plain.raw[step])
    assert not same(seen.validated[3], plain.validated[3])


@pytest.mark.parametrize("select", ["last", "best"])
def test_a_stopped_fit_ends_like_one_that_was_not(watched, select: str) -> None:
    overrides = (
        "strategy=ema", "budget.steps=8", "trainer.validations=4", "checkpoint.every_steps=3",
        f"checkpoint.select={select}",
    )  # fmt: skip
    whole, seen = watched(*overrides)
    with pytest.raises(StoppedError):
        watched(*overrides, stop=5, name="stopped")
    resumed, rest = watched(*overrides, name="stopped")
    assert resumed.resumed == [3]
    assert min(rest.begun) == 3
    assert same(rest.begun[3], seen.begun[3])
    assert same(resumed.module.model.state_dict(), whole.module.model.state_dict())
    assert resumed.history.curve == whole.history.curve
    if select == "best":
        assert same(whole.module.model.state_dict(), seen.validated[whole.selected_step])
    else:
        assert same(whole.module.model.state_dict(), seen.validated[8])


def test_frozen_parts_keep_their_bits(watched, make_plan) -> None:
    torch.manual_seed(0)
    body = fitting.build_model(make_plan().cfg, 10, 32).backbone
    weights = copied(body)
    weights["layer1.0.conv1.weight"][:] = -0.0
    fitted, _ = watched(
        "strategy=feature_extraction", EMA_NODE, "budget.steps=5", "trainer.validations=5",
        weights=weights,
    )  # fmt: skip
    assert same(fitted.module.model.backbone.state_dict(), weights)


class Toy(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def started(callback: EMA) -> tuple[Any, Toy]:
    torch.manual_seed(0)
    trainer, module = SimpleNamespace(global_step=0, sanity_checking=False), Toy()
    callback.on_fit_start(trainer, module)
    callback.on_train_start(trainer, module)
    return trainer, module


def step(callback: EMA, trainer: Any, module: Toy) -> State:
    trainer.global_step += 1
    with torch.no_grad():
        module.layer.weight += torch.randn(2, 2)
    callback.on_train_batch_end(trainer, module, None, None, 0)
    return copied(module)


def test_nothing_is_swapped_before_the_first_update() -> None:
    callback = EMA(0.5, warmup=False)
    trainer, module = started(callback)
    with torch.no_grad():
        module.layer.weight += 1  # what the average, a copy of the start, does not know
    before = copied(module)
    callback.on_validation_start(trainer, module)
    assert same(copied(module), before)
    callback.on_validation_end(trainer, module)
    callback.on_train_end(trainer, module)
    assert same(copied(module), before)


def test_a_checkpoint_within_a_validation_holds_the_raw_weights() -> None:
    callback = EMA(0.5, warmup=False)
    trainer, module = started(callback)
    step(callback, trainer, module)
    raw = step(callback, trainer, module)
    between = {k: v.clone() for k, v in callback.state_dict()["average"].items()}
    callback.on_validation_start(trainer, module)
    assert same(copied(module), between)
    checkpoint = {"state_dict": module.state_dict(), "callbacks": callback.state_dict()}
    callback.on_save_checkpoint(trainer, module, checkpoint)
    assert same(checkpoint["state_dict"], raw)
    assert same(checkpoint["callbacks"]["average"], between)
    callback.on_validation_end(trainer, module)
    assert same(copied(module), raw)


def test_what_it_cannot_average_is_refused() -> None:
    for decay in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match=r"ema\.decay"):
            EMA(decay)
    with pytest.raises(UserError, match="bf16-mixed"):
        EMA().on_fit_start(SimpleNamespace(), Toy().to(torch.bfloat16))
