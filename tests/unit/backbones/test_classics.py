"""The field's usual backbones, from their configuration to a training step, with random weights."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from transferlab.assembling import build_model
from transferlab.backbones.opening import (
    check_backbone,
    keep_map_alone,
    open_backbone,
    resolve_preprocessing,
)
from transferlab.backbones.timm import feature_width
from transferlab.heads.tokens import map_layout, to_tokens
from transferlab.model import TransferModel

Compose = Callable[..., DictConfig]

SMALL = {  # overrides, width of the pooled features, width of the map, positions at that size
    "test_resnet": (("backbone=test_resnet",), 96, 96, 1),
    "test_vit": (("backbone=timm", "backbone.name=test_vit", "backbone.image_size=32"), 64, 64, 4),
    "test_convnext": (
        ("backbone=timm", "backbone.name=test_convnext", "backbone.image_size=32"), 64, 64, 1
    ),
    "test_efficientnet": (
        ("backbone=timm", "backbone.name=test_efficientnet", "backbone.image_size=32"), 256, 256, 1
    ),
    "mobilenetv2_100": (("backbone=mobilenetv2_100", "backbone.image_size=64"), 1280, 1280, 4),
    "mobilenetv3_small_050": (
        ("backbone=mobilenetv3_small_050", "backbone.image_size=64"), 1024, 288, 4
    ),
    "swin_tiny": (
        (
            "backbone=swin_tiny_patch4_window7_224", "backbone.image_size=64",
            "+backbone.kwargs.depths=[1,1,1,1]", "+backbone.kwargs.embed_dim=24",
        ), 192, 192, 4,
    ),
}  # fmt: skip
LARGE = {
    "vgg11_bn": (("backbone=vgg11_bn",), 4096, 512, 49),
    "inception_v3": (("backbone=inception_v3",), 2048, 2048, 64),
    "densenet121": (("backbone=densenet121",), 1024, 1024, 49),
    "resnet50": (("backbone=resnet50",), 2048, 2048, 49),
    "alexnet": (("backbone=alexnet",), 4096, None, None),
}
KINDS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def images_for(node: DictConfig, count: int = 2) -> Tensor:
    given = resolve_preprocessing(node)
    return torch.randn(count, len(given.mean), given.size, given.size)


def train_a_step(model: TransferModel, images: Tensor) -> set[str]:
    """Take a step of SGD; the names of the parameters that moved."""
    model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1])).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent, "no gradient reached these"
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("name", KINDS)
def test_classics_give_features_and_train(name: str, compose: Compose) -> None:
    overrides, width, map_width, positions = (SMALL | LARGE)[name]
    cfg = compose(*overrides)
    OmegaConf.resolve(cfg)
    node = cfg.backbone
    check_backbone(node)
    size = resolve_preprocessing(node).size
    backbone = open_backbone(node, size).eval()
    images = images_for(node)
    with torch.no_grad():
        assert backbone(images).shape == (2, width)
        assert feature_width(backbone) == width
        if map_width is not None:
            layout = map_layout(backbone, images)
            assert layout.width == map_width
            tokens = to_tokens(backbone.forward_features(images), layout)
            assert tokens.shape == (2, positions, map_width)
    moved = train_a_step(build_model(cfg, 3, size), images)
    assert {"head.weight", "head.bias"} <= moved
    assert len(moved) > 10


@pytest.mark.parametrize(
    "name", [n for n in KINDS if n != "alexnet" and getattr(n, "values", [""])[0] != "alexnet"]
)
def test_a_head_on_the_map_leaves_no_parameter_without_gradient(
    name: str, compose: Compose
) -> None:
    overrides = (SMALL | LARGE)[name][0]
    cfg = compose(*overrides, "head=attention_pool")
    OmegaConf.resolve(cfg)
    size = resolve_preprocessing(cfg.backbone).size
    moved = train_a_step(build_model(cfg, 3, size), images_for(cfg.backbone))
    assert any(n.startswith("backbone.") for n in moved)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("mobilenetv3_small_050", {"conv_head.weight", "conv_head.bias"}),
        ("test_convnext", {"head.norm.weight", "head.norm.bias"}),
        ("test_resnet", set()),
        ("swin_tiny", set()),
    ],
)
def test_what_follows_the_pooling_is_gone_and_the_map_is_the_same(
    name: str, gone: set[str], compose: Compose
) -> None:
    cfg = compose(*SMALL[name][0])
    backbone = open_backbone(cfg.backbone, resolve_preprocessing(cfg.backbone).size)
    images = images_for(cfg.backbone, 1)
    names = {n for n, _ in backbone.named_parameters()}
    with torch.no_grad():
        expected = backbone.eval().forward_features(images)
    backbone.train()
    keep_map_alone(backbone, images)
    assert all(module.training for module in backbone.modules() if list(module.children()))
    assert names - {n for n, _ in backbone.named_parameters()} == gone
    with torch.no_grad():
        assert torch.equal(backbone.eval().forward_features(images), expected)


@pytest.mark.slow
def test_vggs_two_wide_layers_are_backbone(compose: Compose) -> None:
    """The convention of transfer work: features are the 4096 of its last hidden layer."""
    cfg = compose("backbone=vgg11_bn")
    pooled = open_backbone(cfg.backbone, 224)
    wide = {n for n, _ in pooled.named_parameters() if n.startswith("pre_logits.")}
    assert {n.split(".")[1] for n in wide} == {"fc1", "fc2"}
    keep_map_alone(pooled, torch.zeros(1, 3, 224, 224))
    assert not {n for n, _ in pooled.named_parameters()} & wide


@pytest.mark.slow
def test_inceptions_auxiliary_classifier_is_off_and_its_size_is_its_own(compose: Compose) -> None:
    cfg = compose("backbone=inception_v3")
    assert resolve_preprocessing(cfg.backbone).size == 299
    backbone = open_backbone(cfg.backbone, 299).train()
    assert not any("aux" in name.lower() for name, _ in backbone.named_parameters())
    assert backbone(images_for(cfg.backbone)).shape == (2, 2048)


@pytest.mark.slow
def test_alexnets_features_are_those_before_its_last_layer(compose: Compose) -> None:
    cfg = compose("backbone=alexnet")
    OmegaConf.resolve(cfg)
    backbone = open_backbone(cfg.backbone, 224).eval()
    assert isinstance(backbone.body.classifier[6], torch.nn.Identity)
    assert isinstance(backbone.body.classifier[4], torch.nn.Linear)
    assert (backbone(images_for(cfg.backbone)) >= 0).all(), "after a ReLU"


def test_torchvisions_auxiliary_outputs_are_named(compose: Compose) -> None:
    cfg = compose(
        "backbone=module", "backbone.module._target_=torchvision.models.googlenet",
        "backbone.image_size=64", "backbone.cut=fc", "backbone.module.init_weights=false",
    )  # fmt: skip
    OmegaConf.resolve(cfg)
    backbone = open_backbone(cfg.backbone, 64)
    with pytest.raises(Exception, match="aux_logits=false"):
        backbone.train()(torch.randn(2, 3, 64, 64))
