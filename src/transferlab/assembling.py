"""A model from its configuration: a backbone, and the head that fits it."""

from typing import Any

import torch
from omegaconf import DictConfig

from transferlab.backbones.opening import (
    check_backbone,
    is_module,
    keep_map_alone,
    open_backbone,
    resolve_preprocessing,
)
from transferlab.backbones.timm import feature_width
from transferlab.building import build, locate
from transferlab.errors import UserError
from transferlab.heads.tokens import map_layout
from transferlab.model import TransferModel
from transferlab.randomness import derive_seed


def build_model(cfg: DictConfig, num_classes: int, image_size: int) -> TransferModel:
    """Build backbone and head with random weights that follow from the seed alone.

    Backbone and head draw from generators of their own: all arms of a replicate start from the
    same head, whatever their backbone's weights. For a head on the unpooled map the backbone is
    without what follows its pooling.

    Args:
        cfg: the run's configuration.
        num_classes: of the target.
        image_size: pixels.

    Raises:
        UserError: the backbone or the head can't be built, or they do not go together.
    """
    torch.manual_seed(derive_seed(cfg.seed, "backbone"))
    backbone = open_backbone(cfg.backbone, image_size)
    given: dict[str, Any] = {"num_classes": num_classes}
    if getattr(locate("head", cfg.head["_target_"]), "takes", "pooled") == "map":
        channels = len(resolve_preprocessing(cfg.backbone).mean)
        images = torch.zeros(1, channels, image_size, image_size)
        layout = map_layout(backbone, images)
        keep_map_alone(backbone, images)
        given |= {"in_features": layout.width, "layout": layout}
    else:
        given["in_features"] = feature_width(backbone)
    torch.manual_seed(derive_seed(cfg.seed, "head"))
    return TransferModel(cfg.backbone.name, backbone, build(cfg.head, **given))


def check_model(cfg: DictConfig) -> None:
    """Check that backbone, head, source and strategy go together, before data is read.

    Raises:
        UserError: a backbone that can't be built, timm's published weights for a module that is
            not timm's, or a backbone that is to train below a head that gives no gradient.
    """
    check_backbone(cfg.backbone)
    if cfg.source.kind == "published" and is_module(cfg.backbone):
        raise UserError(
            f"source=published has timm's weights, and backbone.module={cfg.backbone.name} is not "
            "timm's. Give its weights as a file: source=checkpoint source.path=FILE."
        )
    if getattr(locate("head", cfg.head["_target_"]), "gradient", True):
        return
    if all(build(node).trains_backbone() for node in cfg.strategy.callbacks.values()):
        name = str(cfg.head["_target_"]).split(".")[-2]
        raise UserError(
            f"head={name} gives no gradient: use strategy=feature_extraction, or another head."
        )
