"""Other ways to compute the same: activations recomputed, steps compiled, norms synchronised."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from transferlab.backbones.execution import recompute_activations, synchronise_norms
from transferlab.errors import UserError
from transferlab.fitting import assemble, fit
from transferlab.planning import Plan

MODELS = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet")


def trained(name: str, recompute: bool, frozen: str | None = None) -> dict[str, Any]:
    """Gradients and buffers after two steps in training, with dropout where the model has any."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, drop_path_rate=0.3)
    if recompute:
        recompute_activations(model, name)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(frozen is None or not key.startswith(frozen))
    model.train()
    for step in range(2):
        torch.manual_seed(step)
        model(torch.randn(4, 3, 32, 32)).pow(2).mean().backward()
    found = {f"gradient of {k}": p.grad for k, p in model.named_parameters()}
    return found | {k: v.clone() for k, v in model.named_buffers()}


@pytest.mark.parametrize("name", MODELS)
def test_recomputing_changes_no_gradient_and_no_statistic(name: str) -> None:
    plain, recomputed = trained(name, False), trained(name, True)
    assert plain.keys() == recomputed.keys()
    for key, value in plain.items():
        assert torch.equal(value, recomputed[key]), key


def test_recomputing_does_compute_again() -> None:
    model = timm.create_model("test_resnet", num_classes=0).train()
    passes = []
    model.layer2[0].register_forward_hook(lambda *_: passes.append(1))
    recompute_activations(model, "test_resnet")
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    assert len(passes) == 1  # the hook stands before the end, where recomputing may stop
    model.layer2[0].conv1.register_forward_hook(lambda *_: passes.append(2))
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    assert passes.count(2) == 2


@pytest.mark.parametrize(("name", "stem"), [("test_resnet", "conv1"), ("test_vit", "patch_embed")])
def test_recomputing_behind_a_frozen_stem_leaves_the_gradients(name: str, stem: str) -> None:
    plain, recomputed = trained(name, False, stem), trained(name, True, stem)
    for key, value in plain.items():
        if key.startswith(f"gradient of {stem}"):
            assert recomputed[key] is None
        else:
            assert torch.equal(value, recomputed[key]), key


@pytest.mark.parametrize("model", [nn.Linear(2, 2), timm.create_model("dla34", num_classes=0)])
def test_a_model_without_gradient_checkpointing_is_refused(model: nn.Module) -> None:
    with pytest.raises(UserError, match="gradient_checkpointing"):
        recompute_activations(model, "this one")


def test_synchronised_norms_keep_their_weights_and_their_activations() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32)
    before, names = model(images), list(model.state_dict())
    converted = synchronise_norms(model)
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(converted.state_dict()) == names
    assert torch.equal(converted(images), before)


def test_recomputing_gives_the_same_run(make_plan: Callable[..., Plan]) -> None:
    fits, ids = [], []
    for value in ("false", "true"):
        plan = make_plan(
            "strategy=gradual_unfreezing", "trainer.accumulate=2", "budget.steps=6",
            f"trainer.gradient_checkpointing={value}",
        )  # fmt: skip
        ids.append(plan.run_id)
        fits.append(fit(plan, None, plan.directory, []))
    assert ids[0] == ids[1]
    states = [fitted.module.model.state_dict() for fitted in fits]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.slow
def test_a_compiled_run_trains_what_thaws_and_agrees_with_a_plain_one(
    make_plan: Callable[..., Plan],
) -> None:
    found = {}
    for value in ("false", "true"):
        plan = make_plan("strategy=lp_ft", "budget.steps=6", f"trainer.compile={value}")
        found[value] = plan, fit(plan, None, plan.directory, [])
    assert found["true"][0].run_id != found["false"][0].run_id
    plain, compiled = (found[value][1].module.model.state_dict() for value in ("false", "true"))
    start = assemble(found["true"][0], None)[0].model.state_dict()
    for name, value in plain.items():
        if value.is_floating_point():
            assert not torch.equal(compiled[name], start[name]), f"{name} never trained"
            torch.testing.assert_close(compiled[name], value, atol=2e-3, rtol=2e-2)
    losses = [fitted.history.curve[-1]["train_loss"] for _, fitted in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
