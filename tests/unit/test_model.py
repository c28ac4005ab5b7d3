import pytest
import torch
from torch import nn

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel


def build(name: str = "test_resnet", **kwargs) -> TransferModel:
    torch.manual_seed(0)
    backbone = create_backbone(name, kwargs, 32)
    return TransferModel(name, backbone, LinearHead(feature_width(backbone), 3))


def trained_stages(model: TransferModel) -> set[str]:
    """The first parts of the names of what trains: conv1, bn1, layer1 ... and head."""
    names = [name.removeprefix("backbone.") for name, p in model.named_parameters()
             if p.requires_grad]  # fmt: skip
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("first", "trained"),
    [
        (5, {"head"}), (4, {"head", "layer4"}), (3, {"head", "layer4", "layer3"}),
        (1, {"head", "layer4", "layer3", "layer2", "layer1"}),
        (0, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)  # fmt: skip
def test_training_starts_at_the_asked_stage(first: int, trained: set[str]) -> None:
    model = build()
    assert model.group_count("stages") == 6
    model.train_from(first)
    assert trained_stages(model) == trained


def test_frozen_modules_stay_in_eval_whatever_train_says() -> None:
    model = build("resnet10t")
    model.train_from(3)
    for _ in range(2):
        model.train()
        modes = {name: module.training for name, module in model.backbone.named_modules()}
        assert not modes["bn1"]
        assert not modes["layer2.0.bn1"]
        assert modes["layer3.0.bn1"]
        assert modes["layer4.0.bn2"]
        assert model.head.training
        model.eval()
        assert not any(module.training for module in model.modules())


def test_thawing_brings_the_training_mode_back() -> None:
    model = build()
    model.train_from(5)
    assert not any(module.training for module in model.backbone.modules())
    model.train_from(0)
    assert all(module.training for module in model.modules())


def test_a_frozen_backbone_is_deterministic_in_training() -> None:
    model = build("vit_tiny_patch16_224", depth=2, drop_path_rate=0.9, proj_drop_rate=0.5)
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model.backbone(images), model.backbone(images))
    model.train_from(model.group_count("blocks") - 1, "blocks")
    model.train()
    assert torch.equal(model.backbone(images), model.backbone(images))


def test_running_statistics_of_a_frozen_backbone_stand_still() -> None:
    model = build()
    model.train_from(5)
    model.train()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(5 + torch.randn(4, 3, 32, 32))
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())


def test_layers_hold_every_parameter_once_with_its_full_name() -> None:
    for name in ("test_resnet", "convnext_atto"):
        model = build(name)
        names = [key for layer in model.decay_layers() for key, _ in layer]
        assert sorted(names) == sorted(key for key, _ in model.named_parameters())


def test_norm_layers_are_those_with_running_statistics() -> None:
    model = build()
    assert len(model.norm_layers()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules()
    )
    assert build("vit_tiny_patch16_224", depth=1).norm_layers() == []


@pytest.mark.parametrize("first", [-1, 6])
def test_a_group_that_is_not_there_is_refused(first: int) -> None:
    with pytest.raises(UserError, match="has 5 groups of stages"):
        build().train_from(first)
