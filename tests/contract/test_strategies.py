"""Every strategy YAML on every family of backbones: what the dry run says is what changes."""

from collections.abc import Callable

import pytest
import torch

import transferlab.callbacks.wise_ft as wise_ft
from transferlab.assembling import build_model
from transferlab.backbones.weights import StateDict
from transferlab.callbacks.phases import Phases
from transferlab.config import config_folder
from transferlab.fitting import assemble, fit
from transferlab.phase_table import phase_rows
from transferlab.planning import Plan

SELECTS = ("greedy_soup", "auto_depth")  # fit nothing, or several candidates: tests of their own
STRATEGIES = sorted(
    path.stem for path in (config_folder() / "strategy").glob("*.yaml") if path.stem not in SELECTS
)
BACKBONES = {
    "resnet": "test_resnet", "vit": "test_vit", "convnext": "test_convnext",
    "efficientnet": "test_efficientnet", "mobilenetv2_100": "mobilenetv2_100",
}  # fmt: skip
STEPS = 24
"""Enough for every phase of every strategy: 2 steps an epoch, at most 10 layer groups."""


@pytest.fixture(autouse=True)
def half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """WiSE-FT may choose the probed backbone, in which nothing has changed: here it doesn't."""
    monkeypatch.setattr(wise_ft, "choose_alpha", lambda alphas, _: alphas[len(alphas) // 2])


def fine_steps(plan: Plan) -> float:
    return len(plan.train) / int(plan.cfg.batch_size)


def weights_of(plan: Plan) -> StateDict:
    """Weights of a source, as a pretraining run would leave them: any others than the seed's."""
    model = build_model(plan.cfg, len(plan.data.store.classes), plan.data.preprocessing.size)
    torch.manual_seed(7)
    return {
        key: torch.rand_like(value) + 0.5 if key.endswith("running_var")
        else value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in model.backbone.state_dict().items()
    }  # fmt: skip


def plan_of(make_plan: Callable[..., Plan], strategy: str, backbone: str) -> Plan:
    return make_plan(
        f"strategy={strategy}", "backbone=timm", f"backbone.name={backbone}",
        "backbone.image_size=32", "source=none", "strategy.init=source", "target.shots=2",
        "batch_size=10", f"budget.steps={STEPS}", "optimizer.lr=0.01", "trainer.validations=8",
    )  # fmt: skip


def check(plan: Plan) -> None:
    """Fit and compare with the table: what it calls trainable changes, and nothing else."""
    weights = weights_of(plan)
    module, _, callbacks = assemble(plan, weights)
    rows = phase_rows(plan.cfg, module.model, callbacks, fine_steps(plan))
    named = {name for row in rows for name in row.names}
    (schedule,) = [c for c in callbacks if isinstance(c, Phases)]
    states = schedule.plan(module.model, STEPS, fine_steps(plan))[0].states
    paths = {id(m): path for path, m in module.model.named_modules()}
    moving = {paths[id(m)] for state in states for m, mode in state.modes if mode}
    before = {k: v.clone() for k, v in module.model.state_dict().items()}
    fitted = fit(plan, weights, plan.directory, [])
    after = fitted.module.model.state_dict()
    parameters = {name for name, _ in fitted.module.model.named_parameters()}
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed & parameters == named & parameters
    assert fitted.trainer.global_step == STEPS
    for key in changed - parameters:
        owner = key.rpartition(".")[0]
        assert owner in moving, f"{key} changed, though its module is never in train mode"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_the_table_calls_trainable_changes_and_nothing_else(
    make_plan: Callable[..., Plan], strategy: str
) -> None:
    check(plan_of(make_plan, strategy, "test_resnet"))


FAMILIES = [name for name in BACKBONES if name != "resnet"]
PAIRS = [
    (strategy, FAMILIES[(number + more) % len(FAMILIES)])
    for number, strategy in enumerate(STRATEGIES)
    for more in (0, 2)
]
"""Every strategy on two families by turns: all combinations would take minutes and show no more."""


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "family"), PAIRS)
def test_the_same_on_other_families_of_backbones(
    make_plan: Callable[..., Plan], strategy: str, family: str
) -> None:
    check(plan_of(make_plan, strategy, BACKBONES[family]))
