"""Frozen is frozen, and thawing happens when it should: read off real fits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from transferlab import fitting
from transferlab.backbones.timm import create_backbone
from transferlab.callbacks.cost import Cost
from transferlab.fitting import Fit, fit
from transferlab.parts import Parts
from transferlab.planning import Plan
from transferlab.run import execute

State = dict[str, Tensor]
BACKBONES = {
    "resnet10t": ("backbone=resnet10t",),
    "vit_tiny": (
        "backbone=vit_tiny_patch16_224", "+backbone.kwargs.depth=2",
        "+backbone.kwargs.drop_path_rate=0.5", "+backbone.kwargs.proj_drop_rate=0.5",
    ),
    "mobilenetv3": ("backbone=mobilenetv3_small_050",),
}  # fmt: skip


def weights_for(plan: Plan) -> State:
    """Weights and statistics as after some training: nothing in them is 0 or 1 any more."""
    torch.manual_seed(5)
    kwargs = dict(plan.cfg.backbone.kwargs)
    state = create_backbone(plan.cfg.backbone.name, kwargs, plan.cfg.backbone.image_size)
    return {
        key: value + 0.05 * torch.rand_like(value) if value.is_floating_point() else value + 7
        for key, value in state.state_dict().items()
    }


class Recorder(Cost):
    """Look at the model before and after every optimiser step."""

    def __init__(self, *energy: str) -> None:
        super().__init__(*energy)
        self.seen: list[dict[str, Any]] = []
        Recorder.last = self

    last: "Recorder"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        model = pl_module.model
        self.seen.append(
            {
                "before": {k: v.clone() for k, v in model.state_dict().items()},
                "flags": {k for k, p in model.named_parameters() if p.requires_grad},
                "training": {k for k, m in model.named_modules() if m.training},
                "layout": [
                    [id(p) for p in g["params"]] for g in trainer.optimizers[0].param_groups
                ],
                "lr": [g["lr"] for g in trainer.optimizers[0].param_groups],
            }
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        state, before = pl_module.model.state_dict(), self.seen[-1]["before"]
        self.seen[-1]["changed"] = {k for k, v in state.items() if not torch.equal(v, before[k])}


@pytest.fixture
def watched(
    make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Fit, list[dict[str, Any]], State]]:
    """Fit from trained-looking weights, watching every step."""

    def run(*overrides: str) -> tuple[Fit, list[dict[str, Any]], State]:
        monkeypatch.setattr(fitting, "Cost", Recorder)
        plan = make_plan(*overrides)
        weights = weights_for(plan)
        fitted = fit(plan, weights, plan.directory, [])
        return fitted, Recorder.last.seen, weights

    return run


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_is_frozen(name: str, watched) -> None:
    fitted, seen, weights = watched(
        *BACKBONES[name], "backbone.image_size=32", "strategy=feature_extraction",
        "trainer.validations=3", "optimizer.lr=0.1",
    )  # fmt: skip
    model = fitted.module.model
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[key].to(value.dtype)), key
    assert len(seen) == 3
    for step in seen:  # the second and third step follow a validation
        assert step["flags"] == {"head.weight", "head.bias"}
        assert step["changed"] == {"head.weight", "head.bias"}
        assert not {m for m in step["training"] if m.startswith("backbone")}
        assert "head" in step["training"]
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    state = fitted.trainer.optimizers[0].state
    assert {id(p) for p in state} == {id(p) for p in model.head.parameters()}
    assert all(p.grad is None for p in model.backbone.parameters())


def test_a_run_leaves_a_frozen_backbone_as_the_file_had_it(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    overrides = ("backbone=resnet10t", "backbone.image_size=32", "strategy=feature_extraction")
    weights = weights_for(make_plan(*overrides))
    save_file(weights, tmp_path / "weights.safetensors")
    plan = make_plan(
        *overrides, "source=checkpoint", f"source.path='{tmp_path / 'weights.safetensors'}'",
        "checkpoint.keep=last",
    )  # fmt: skip
    execute(plan)
    (kept,) = plan.directory.glob("checkpoints/*.safetensors")
    after = load_file(kept)
    body = {k.removeprefix("backbone."): v for k, v in after.items() if k.startswith("backbone.")}
    assert set(body) == set(weights)
    assert all(torch.equal(body[key], weights[key]) for key in weights)


def stage_of(name: str) -> int:
    """Return the stage of a test_resnet's parameter or buffer, counted by its name."""
    part = name.removeprefix("backbone.").split(".")[0]
    return 5 if part == "head" else int(part[-1]) if part.startswith("layer") else 0


def test_gradual_unfreezing_thaws_one_stage_after_another(watched) -> None:
    fitted, seen, _ = watched(
        "strategy=gradual_unfreezing", "budget.steps=10", "trainer.validations=5",
    )  # fmt: skip
    names = [name for name, _ in fitted.module.model.named_parameters()]
    everything = list(fitted.module.model.state_dict())
    for step, found in enumerate(seen):
        first = max(5 - step, 0)  # half of ten steps for five stages
        expected = {name for name in names if stage_of(name) >= first}
        assert found["flags"] == expected, step
        assert found["changed"] & set(names) == expected, step
        buffers = {n for n in everything if n not in names and stage_of(n) >= first}
        assert found["changed"] - set(names) == buffers, step
        assert found["layout"] == seen[0]["layout"]
    assert len(seen) == 10
    assert len({rate for step in seen for rate in step["lr"]}) > 5, "the schedule went on"


def test_what_never_thaws_has_no_optimizer_state(watched) -> None:
    fitted, _, weights = watched(
        "strategy=gradual_unfreezing", "budget.steps=4",
        "strategy.callbacks.gradual_unfreezing.share=1.0",
    )  # fmt: skip
    # 5 stages over 4 steps: by the last step, number 3, three of them have thawed
    model = fitted.module.model
    thawed = {id(p) for n, p in model.named_parameters() if stage_of(n) >= 2}
    assert {id(p) for p in fitted.trainer.optimizers[0].state} == thawed
    for name, value in model.backbone.state_dict().items():
        if stage_of(name) < 2:
            assert torch.equal(value, weights[name].to(value.dtype)), name


def test_lp_ft_probes_then_trains_everything(watched) -> None:
    _, seen, _ = watched("strategy=lp_ft", "budget.steps=4")
    sizes = [len(step["flags"]) for step in seen]
    assert sizes[0] == sizes[1] == 2
    assert sizes[2] == sizes[3] == len(seen[0]["before"].keys() & seen[3]["flags"]) > 20
    assert {n for n in seen[1]["training"] if n.startswith("backbone")} == set()
    assert "backbone.bn1" in seen[2]["training"]


def test_layer_decay_reaches_the_optimizer_and_survives_the_schedule(watched) -> None:
    fitted, seen, _ = watched("strategy=layer_decay", "budget.steps=4", "scheduler.warmup=0")
    model = fitted.module.model
    depth = len(Parts(model, "blocks").groups)
    for step in seen:
        rates = sorted(set(step["lr"]))
        assert len(rates) == depth
        ratios = [low / high for low, high in pairwise(rates)]
        assert ratios == pytest.approx([0.75] * (depth - 1))


def test_a_frozen_random_backbone_gets_statistics_of_the_training_images(
    make_plan: Callable[..., Plan],
) -> None:
    plan = make_plan("strategy=feature_extraction", "source=none")
    fitted = fit(plan, None, plan.directory, [])
    norms = fitted.module.model.norm_layers()
    assert all(norm.momentum == 0.1 for norm in norms)
    assert not any(torch.equal(n.running_mean, torch.zeros_like(n.running_mean)) for n in norms)
    again = fit(plan, None, plan.directory, [])
    for one, other in zip(norms, again.module.model.norm_layers(), strict=True):
        assert torch.equal(one.running_var, other.running_var)


def test_all_arms_start_from_the_same_head(make_plan: Callable[..., Plan], watched) -> None:
    _, probed, _ = watched("strategy=feature_extraction", "seed=4")
    _, tuned, _ = watched("strategy=fine_tune", "seed=4")
    _, other, _ = watched("strategy=fine_tune", "seed=5")
    key = "head.weight"
    assert torch.equal(probed[0]["before"][key], tuned[0]["before"][key])
    assert not torch.equal(other[0]["before"][key], tuned[0]["before"][key])


def test_the_best_weights_are_put_back(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan("checkpoint.select=best", "trainer.validations=3", "strategy=scratch")
    fitted = fit(plan, None, plan.directory, [])
    scores = {p["step"]: p["validation_accuracy"] for p in fitted.history.curve}
    best = min(step for step, score in scores.items() if score == max(scores.values()))
    assert fitted.selected_step == best
