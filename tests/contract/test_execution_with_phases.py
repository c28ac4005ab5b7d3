"""Ways of computing go together with phases: whatever a phase thaws trains in it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

import transferlab.fitting as fitting
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.phases import Phases
from transferlab.planning import Plan

STEPS = 18
WAYS = {
    "bf16-mixed": ("trainer.precision=bf16-mixed",),
    "bf16-true": ("trainer.precision=bf16-true", "optimizer.lr=0.1"),  # 8 bits: small steps vanish
    "accumulation": ("trainer.accumulate=2",),
    "clipping": ("trainer.gradient_clip=0.1",),
    "gradient checkpointing": ("trainer.gradient_checkpointing=true",),
    "all of them": (
        "trainer.precision=bf16-mixed", "trainer.accumulate=2", "trainer.gradient_clip=0.1",
        "trainer.gradient_checkpointing=true",
    ),
}  # fmt: skip


class Moved(StrategyCallback):
    """Note for every phase which of the parameters that train in it have moved in it."""

    def __init__(self, schedule: Phases) -> None:
        self.schedule = schedule
        self.before: dict[int, dict[str, Tensor]] = {}
        self.still: dict[int, set[str]] = {}
        self.norms: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        phase, _ = self.schedule.phase_at(trainer.global_step)
        if phase not in self.before:
            named = pl_module.model.named_parameters()
            self.before[phase] = {n: p.detach().clone() for n, p in named if p.requires_grad}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(grads)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        phase, _ = self.schedule.phase_at(max(trainer.global_step - 1, 0))
        before = self.before[phase]
        named = pl_module.model.named_parameters()
        self.still[phase] = {n for n, p in named if n in before and torch.equal(p, before[n])}


@pytest.fixture
def run(make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    assembled = fitting.assemble

    def call(*overrides: str) -> tuple[Moved, Any]:
        watches: list[Moved] = []

        def watching(plan: Plan, weights: Any) -> Any:
            module, data, callbacks = assembled(plan, weights)
            watches.append(Moved(next(c for c in callbacks if isinstance(c, Phases))))
            return module, data, [*callbacks, watches[0]]

        monkeypatch.setattr(fitting, "assemble", watching)
        plan = make_plan(
            "strategy=gradual_unfreezing", "strategy.callbacks.gradual_unfreezing.share=0.9",
            "backbone=timm", "backbone.image_size=32", "source=none", "strategy.init=source",
            f"budget.steps={STEPS}", "optimizer.lr=0.01", "scheduler=constant", *overrides,
        )  # fmt: skip
        return watches, fitting.fit(plan, None, plan.directory, [])

    return call


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize(
    "way",
    [way if way == "all of them" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS],
)
def test_every_phase_moves_what_it_trains(way: str, backbone: str, run: Callable[..., Any]) -> None:
    (watch,), done = run(f"backbone.name={backbone}", *WAYS[way])
    assert done.trainer.global_step == STEPS
    assert len(watch.still) >= 6
    assert not any(watch.still.values()), watch.still
    if "clip" in way or way == "all of them":
        assert min(watch.norms) > 0


def test_accumulation_of_a_model_without_batch_statistics_is_the_whole_batch(
    run: Callable[..., Any],
) -> None:
    exact = "backbone.name=test_vit", "trainer.precision=64-true", "optimizer=sgd"
    (_, one), (_, two) = run(*exact), run(*exact, "trainer.accumulate=2")
    state, other = one.module.model.state_dict(), two.module.model.state_dict()
    gaps = {key: float((value - other[key]).abs().max()) for key, value in state.items()}
    assert max(gaps.values()) < 1e-9, gaps


def test_recomputed_activations_change_nothing(run: Callable[..., Any]) -> None:
    _, plain = run("backbone.name=test_resnet")
    _, again = run("backbone.name=test_resnet", "trainer.gradient_checkpointing=true")
    other = again.module.model.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in plain.module.model.state_dict().items())
