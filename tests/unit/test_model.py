import pytest
import torch
from torch import nn

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.parts import Parts
from transferlab.phase_plan import PhasePlan
from transferlab.phase_reading import parse_phases


def build(name: str = "test_resnet", **kwargs) -> TransferModel:
    torch.manual_seed(0)
    backbone = create_backbone(name, kwargs, 32)
    return TransferModel(name, backbone, LinearHead(feature_width(backbone), 3))


def train(model: TransferModel, *parts: str | int) -> None:
    """Let parts train as a schedule of one phase does."""
    plan = PhasePlan(parse_phases({"only": {"train": parts}}), Parts(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.states[0].trained)
    model.hold(plan.states[0].modes)


def trained_stages(model: TransferModel) -> set[str]:
    """The first parts of the names of what trains: conv1, bn1, layer1 ... and head."""
    names = [name.removeprefix("backbone.") for name, p in model.named_parameters()
             if p.requires_grad]  # fmt: skip
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("count", "trained"),
    [
        (1, {"head"}), (2, {"head", "layer4"}), (3, {"head", "layer4", "layer3"}),
        (5, {"head", "layer4", "layer3", "layer2", "layer1"}),
        (6, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)  # fmt: skip
def test_training_starts_at_the_asked_stage(count: int, trained: set[str]) -> None:
    model = build("resnet10t")
    train(model, f"last {count}")
    assert trained_stages(model) == trained


def test_frozen_modules_stay_in_eval_whatever_train_says() -> None:
    model = build("resnet10t")
    train(model, "last 3")
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
    train(model, "head")
    assert not any(module.training for module in model.backbone.modules())
    train(model, "all")
    assert all(module.training for module in model.modules())


def test_holding_does_not_wake_a_model_in_eval() -> None:
    model = build().eval()
    train(model, "all")
    assert not any(module.training for module in model.modules())


def test_a_frozen_backbone_is_deterministic_in_training() -> None:
    model = build("vit_tiny_patch16_224", depth=2, drop_path_rate=0.9, proj_drop_rate=0.5)
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model.backbone(images), model.backbone(images))
    train(model, "head")
    model.train()
    assert torch.equal(model.backbone(images), model.backbone(images))


def test_running_statistics_of_a_frozen_backbone_stand_still() -> None:
    model = build()
    train(model, "head")
    model.train()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(5 + torch.randn(4, 3, 32, 32))
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())


def test_a_head_that_takes_the_map_gets_it_unpooled() -> None:
    class MapHead(nn.Module):
        takes = "map"

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.mean((2, 3))

    model = build()
    images = torch.randn(2, 3, 32, 32)
    assert model.features(images).ndim == 2
    pooled = TransferModel("x", model.backbone, MapHead())
    assert pooled.features(images).ndim == 4
    torch.testing.assert_close(pooled(images), model.backbone(images))


def test_undecayed_parameters_have_the_models_names() -> None:
    model = build("vit_tiny_patch16_224", depth=1)
    assert {"backbone.pos_embed", "backbone.cls_token"} <= model.undecayed()
    assert model.undecayed() <= {name for name, _ in model.named_parameters()} | {
        "backbone.dist_token", "backbone.reg_token"
    }  # fmt: skip


def test_norm_layers_are_those_with_running_statistics() -> None:
    model = build()
    assert len(model.norm_layers()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules()
    )
    assert build("vit_tiny_patch16_224", depth=1).norm_layers() == []


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="layer groups: stem, layer1"):
        train(build(), "last 7")
