"""Layer groups are timm's, and the ladders that decay writes are the published ones."""

import math

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from transferlab.backbones.groups import layer_ids, module_groups
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


def decayed(model: TransferModel, decay: float = 0.75) -> AdamW:
    layers = model.decay_layers()
    scales = LayerwiseLRDecay(decay).lr_scales(model, len(layers))
    return AdamW(parameter_groups(layers, scales, LR, model.undecayed()), lr=LR)


def rate_of(model: TransferModel, optimizer: AdamW) -> dict[str, float]:
    """Read every parameter's rate, as a factor on the head's, off the optimizer."""
    rates = {id(p): group["lr"] / LR for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in model.named_parameters()}


def test_vit_b_has_the_published_ladder() -> None:
    model = build("vit_base_patch16_224")
    rates = rate_of(model, decayed(model))
    assert sorted(set(rates.values())) == pytest.approx(VIT_LADDER, abs=6e-6)
    assert len(rates) == 152
    assert rates["backbone.patch_embed.proj.weight"] == pytest.approx(0.75**13)
    assert rates["backbone.blocks.0.attn.qkv.weight"] == pytest.approx(0.75**12)
    assert rates["backbone.blocks.11.mlp.fc2.weight"] == pytest.approx(0.75)
    assert rates["backbone.norm.weight"] == pytest.approx(0.75)
    assert rates["head.weight"] == 1.0


def test_resnet50_has_the_published_ladder() -> None:
    model = build("resnet50")
    rates = rate_of(model, decayed(model))
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
    ours = rate_of(model, decayed(model))
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
    optimizer = decayed(model)
    scheduler: LRScheduler = schedule(optimizer)
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
        ("mobilenetv3_small_050", "stages", 8),
    ],
)  # fmt: skip
def test_every_module_lies_in_one_group(name: str, granularity, groups: int) -> None:
    backbone = build(name).backbone
    ids, head = layer_ids(name, backbone, granularity)
    assert head + 1 == groups
    sorted_modules = module_groups(backbone, ids, head)
    flat = [module for group in sorted_modules for module in group]
    leaves = [m for m in backbone.modules() if next(m.children(), None) is None]
    assert len(flat) == len(set(map(id, flat))) == len(leaves)
    assert all(sorted_modules), "a group without modules could never be held in eval"
    assert set(ids) == {key for key, _ in backbone.named_parameters()}


def test_modules_without_parameters_follow_their_block() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", {"drop_path_rate": 0.5, "depth": 3}, 32)
    ids, head = layer_ids("vit_tiny_patch16_224", backbone, "blocks")
    groups = module_groups(backbone, ids, head)
    for block in range(3):
        assert any(m is backbone.blocks[block].drop_path1 for m in groups[block + 1]), block
