"""Layer groups are timm's, and the ladders that decay writes are the published ones."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from transferlab.backbones.groups import classified_ids, group_names, layer_ids
from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.callbacks.layerwise_lr_decay import LayerwiseLRDecay
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.optim import parameter_groups, warmup_cosine

VIT_LADDER = (
    0.02376, 0.03168, 0.04224, 0.05631, 0.07508, 0.10011, 0.13348, 0.17798, 0.2373, 0.31641,
    0.42188, 0.5625, 0.75, 1.0,
)  # fmt: skip
"""timm 1.0's param_groups_layer_decay(vit_base_patch16_224, layer_decay=0.75)."""
LR = 2e-3


def build(name: str) -> TransferModel:
    with torch.device("meta"):
        backbone = create_backbone(name, {})
        head = LinearHead(feature_width(backbone), 10)
    return TransferModel(name, backbone, head)


def decayed(
    model: TransferModel, schedule: Callable[[Optimizer], LRScheduler] | None = None
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer of a fit with layer decay, as its start leaves it, and its scheduler."""
    optimizer = AdamW(parameter_groups(model.named_parameters(), LR, model.undecayed()), lr=LR)
    scheduler = schedule(optimizer) if schedule else None
    configs = [SimpleNamespace(scheduler=scheduler)] if scheduler else []
    trainer: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=configs)
    LayerwiseLRDecay(0.75).on_fit_start(trainer, SimpleNamespace(model=model))  # type: ignore[arg-type]
    return optimizer, scheduler


def rate_of(model: TransferModel, optimizer: Optimizer) -> dict[str, float]:
    """Read every parameter's rate, as a factor on the head's, off the optimizer."""
    rates = {id(p): group["lr"] / LR for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize(
    ("name", "kwargs", "groups"),
    [
        ("vit_tiny_patch16_224", {"depth": 4}, {"blocks": 5, "stages": 5}),
        ("vit_tiny_patch16_224", {"depth": 14}, {"blocks": 15, "stages": 15}),
        ("resnet18", {"layers": (1, 3, 2, 2)}, {"blocks": 9, "stages": 5}),
    ],
)
def test_models_made_shallower_or_deeper_have_their_own_groups(
    name: str, kwargs: dict[str, Any], groups: dict[str, int], granularity: Any
) -> None:
    """The stem, the blocks, and nothing that the model does not have."""
    backbone = create_backbone(name, kwargs)
    ids, head = layer_ids(backbone, granularity)
    assert head == groups[granularity]
    assert set(ids.values()) == set(range(head))
    assert all(ids[n] == int(n.split(".")[1]) + 1 for n in ids if n.startswith("blocks."))


def test_a_model_without_coarse_groups_has_its_fine_ones() -> None:
    with torch.device("meta"):
        backbone = create_backbone("rdnet_tiny", {})
    assert layer_ids(backbone, "stages") == layer_ids(backbone, "blocks")


def test_vit_b_has_the_published_ladder() -> None:
    model = build("vit_base_patch16_224")
    rates = rate_of(model, decayed(model)[0])
    assert sorted(set(rates.values())) == pytest.approx(VIT_LADDER, abs=6e-6)
    assert len(rates) == 152
    assert rates["backbone.patch_embed.proj.weight"] == pytest.approx(0.75**13)
    assert rates["backbone.blocks.0.attn.qkv.weight"] == pytest.approx(0.75**12)
    assert rates["backbone.blocks.11.mlp.fc2.weight"] == pytest.approx(0.75)
    assert rates["backbone.norm.weight"] == pytest.approx(0.75)
    assert rates["head.weight"] == 1.0


def test_resnet50_has_the_published_ladder() -> None:
    model = build("resnet50")
    rates = rate_of(model, decayed(model)[0])
    ladder = sorted(set(rates.values()))
    assert len(ladder) == 18
    assert len(rates) == 161
    assert ladder == pytest.approx([0.75 ** (17 - layer) for layer in range(18)])
    assert min(ladder) == pytest.approx(0.00752, abs=6e-6)
    assert rates["backbone.conv1.weight"] == min(ladder)
    assert rates["backbone.layer4.2.conv3.weight"] == pytest.approx(0.75)
    assert {rates["head.weight"], rates["head.bias"]} == {1.0}


@pytest.mark.parametrize(
    "name",
    ["resnet50", "vit_base_patch16_224", "convnext_atto", "mobilenetv3_small_050",
     "efficientnet_b0", "test_resnet"],
)  # fmt: skip
def test_rates_are_those_that_timm_gives_the_model_with_its_classifier(name: str) -> None:
    model = build(name)
    ours = rate_of(model, decayed(model)[0])
    with torch.device("meta"):
        whole = timm.create_model(name, num_classes=10)
    names = {id(parameter): key for key, parameter in whole.named_parameters()}
    theirs = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.75)
        for parameter in group["params"]
    }
    shared = [key.removeprefix("backbone.") for key in ours if key.startswith("backbone.")]
    assert set(shared) <= set(theirs)
    assert {key: ours[f"backbone.{key}"] for key in shared} == pytest.approx(
        {key: theirs[key] for key in shared}
    )
    assert ours["head.weight"] == 1.0 == max(theirs.values())


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (lambda o: CosineAnnealingLR(o, T_max=20), 0.5 * (1 + math.cos(math.pi * 5 / 20))),
        (lambda o: warmup_cosine(o, 20, 0.0), 0.5 * (1 + math.cos(math.pi * 5 / 20))),
        (lambda o: warmup_cosine(o, 20, 0.5), 6 / 11),
    ],
)
def test_the_ladder_holds_under_schedules(schedule, factor: float) -> None:
    model = build("vit_base_patch16_224")
    optimizer, scheduler = decayed(model, schedule)
    assert scheduler is not None
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    found = sorted(set(rate_of(model, optimizer).values()))
    assert found == pytest.approx([factor * scale for scale in VIT_LADDER], rel=1e-3)


@pytest.mark.parametrize("decay", [1.0, 0.0, 1.5, -0.5])
def test_a_decay_that_would_do_nothing_or_harm_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match=r"layer_decay\.decay"):
        LayerwiseLRDecay(decay)


@pytest.mark.parametrize(
    ("name", "granularity", "groups"),
    [
        ("resnet50", "stages", 6), ("resnet50", "blocks", 18),
        ("vit_base_patch16_224", "blocks", 14), ("convnext_atto", "stages", 6),
        ("convnext_atto", "blocks", 14), ("mobilenetv3_small_050", "stages", 8),
    ],
)  # fmt: skip
def test_every_parameter_has_a_number_and_every_number_parameters(
    name: str, granularity, groups: int
) -> None:
    backbone = build(name).backbone
    ids, head = layer_ids(backbone, granularity)
    assert head + 1 == groups
    assert set(ids) == {key for key, _ in backbone.named_parameters()}
    assert set(range(head)) <= set(ids.values()) <= set(range(head + 1))


def test_a_body_without_classifier_counts_as_the_one_with() -> None:
    """timm's own numbers shift by one without the classifier; ours must not."""
    with torch.device("meta"):
        whole = timm.create_model("vit_base_patch16_224", num_classes=7)
        body = timm.create_model("vit_base_patch16_224", num_classes=0)
    ids, head = layer_ids(body, "blocks")
    theirs, top = classified_ids(whole, "blocks")
    assert head == top == 13
    assert ids == {n: i for n, i in theirs.items() if not n.startswith("head.")}
    assert ids["blocks.11.mlp.fc2.weight"] == ids["norm.weight"] == 12


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.stem = nn.Linear(2, 2)
        self.act = nn.ReLU()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])


def test_a_module_of_ones_own_is_cut_at_its_children() -> None:
    ids, head = layer_ids(Own(), "stages")
    assert head == 2
    assert {n: i for n, i in ids.items() if n.endswith(("scale", "weight"))} == {
        "scale": 0, "stem.weight": 0, "layers.0.weight": 1, "layers.1.0.weight": 1
    }  # fmt: skip
    fine, top = layer_ids(Own(), "blocks")
    assert top == 3
    assert (fine["layers.0.weight"], fine["layers.1.0.weight"]) == (1, 2)
    wrapped, wrapped_head = layer_ids(nn.Sequential(Own()), "stages")
    assert (wrapped_head, set(wrapped)) == (2, {f"0.{n}" for n in ids})


def test_what_an_adapter_added_goes_with_its_layer() -> None:
    backbone = build("resnet50").backbone
    plain, _ = layer_ids(backbone, "blocks")

    class Wrapper(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.base_layer, self.lora_A = layer, nn.Linear(2, 2)

    backbone.layer3[2].conv2 = Wrapper(backbone.layer3[2].conv2)
    ids, _ = layer_ids(backbone, "blocks")
    own = {n: i for n, i in ids.items() if "layer3.2.conv2" in n}
    assert set(own.values()) == {plain["layer3.2.conv2.weight"]}
    assert len(own) == 3


def test_group_names_are_distinct_and_say_what_a_group_holds() -> None:
    ids = {"backbone.a.0.w": 0, "backbone.a.1.w": 1, "backbone.b.w": 1, "backbone.c.w": 2}
    assert group_names(ids, 3) == ["a.0", "group1", "c"]
