"""What a phase has not thawed is the same to the last bit, buffers too, after every phase."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

import transferlab.fitting as fitting
from transferlab.backbones.weights import StateDict
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.gradual_unfreezing import GradualUnfreezing
from transferlab.planning import Plan
from transferlab.run import starting_weights

STEPS = 20


class Net(nn.Module):
    """A module of a user's own, with norm statistics and dropout at two depths."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(width, width, 3), nn.ReLU())
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.last(self.middle(self.stem(images)))).flatten(1)
        out: Tensor = self.classifier(features)
        return out


class Watch(StrategyCallback):
    """Compare what no phase has thawed so far with the start, before every step and at the end."""

    def __init__(self, schedule: GradualUnfreezing) -> None:
        self.schedule = schedule
        self.phases: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = {k: v.clone() for k, v in pl_module.model.state_dict().items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        phase, _ = self.schedule.phase_at(trainer.global_step - 1)
        self.phases.add(phase)
        plan = self.schedule._plan
        thawed = {name for state in plan.states[: phase + 1] for name in state.trained}
        groups = {plan.parts.group_of[name] for name in thawed}
        owners = {name.rpartition(".")[0]: group for name, group in plan.parts.group_of.items()}
        for key, value in pl_module.model.state_dict().items():
            group = owners.get(key.rpartition(".")[0])
            if group is not None and group not in groups:
                assert torch.equal(value, self.before[key]), (phase, key)


def fitted(
    plan: Plan, weights: StateDict | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[Watch, Any]:
    assembled = fitting.assemble

    def watching(plan: Plan, weights: StateDict | None) -> Any:
        module, data, callbacks = assembled(plan, weights)
        schedule = next(c for c in callbacks if isinstance(c, GradualUnfreezing))
        watches.append(Watch(schedule))
        return module, data, [*callbacks, watches[0]]

    watches: list[Watch] = []
    monkeypatch.setattr(fitting, "assemble", watching)
    done = fitting.fit(plan, weights, plan.directory, [])
    return watches[0], done


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_vit"]
)
def test_frozen_groups_of_every_family_stand_still(
    backbone: str, make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        "strategy=gradual_unfreezing", "backbone=timm", f"backbone.name={backbone}",
        "backbone.image_size=32", "source=none", "strategy.init=source", f"budget.steps={STEPS}",
        "strategy.callbacks.gradual_unfreezing.share=0.9", "optimizer.lr=0.01",
        "+backbone.kwargs.drop_path_rate=0.2",
    )  # fmt: skip
    watch, done = fitted(plan, None, monkeypatch)
    assert len(watch.phases) > 3
    changed = [k for k, v in done.module.model.state_dict().items()
               if not torch.equal(v, watch.before[k])]  # fmt: skip
    assert len(changed) > len(watch.before) / 2  # in the end all of it has trained


@pytest.mark.parametrize("wrapping", ["plain", "DataParallel", "state_dict"])
def test_frozen_groups_of_a_users_own_module_with_its_own_file(
    wrapping: str, make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    trained = Net()
    state: Any = trained.state_dict()
    if wrapping != "plain":
        state = {f"module.{key}": value for key, value in state.items()}
    if wrapping == "state_dict":
        state = {"state_dict": state, "epoch": 3}
    torch.save(state, tmp_path / "net.pth")
    plan = make_plan(
        "strategy=gradual_unfreezing", "backbone=module",
        f"backbone.module._target_={Net.__module__}.Net", "backbone.cut=classifier",
        f"allowed_packages=[{Net.__module__.split('.')[0]}]",
        "backbone.image_size=16", "source=checkpoint", f"source.path={tmp_path / 'net.pth'}",
        f"budget.steps={STEPS}", "optimizer.lr=0.01",
    )  # fmt: skip
    watch, done = fitted(plan, starting_weights(plan.cfg), monkeypatch)
    assert len(watch.phases) == 4
    for key, value in trained.state_dict().items():
        if not key.startswith("classifier"):
            assert torch.equal(watch.before[f"backbone.body.{key}"], value), key
    assert not torch.equal(done.module.model.backbone.body.stem[0].weight, trained.stem[0].weight)
