"""Backbones from their configuration: timm's by name, or a module of the user's."""

import inspect
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from transferlab.backbones.module import create_module, starts_at_random
from transferlab.backbones.timm import Preprocessing, create_backbone, default_config
from transferlab.building import locate
from transferlab.errors import UserError
from transferlab.records import sha256_file

MODULE_INPUT: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "interpolation": "bilinear",
    "crop_pct": 0.875,
}
"""What a module of the user's is given where its options do not say otherwise: torchvision's."""


def is_module(node: DictConfig) -> bool:
    """Say whether a backbone is a module of the user's, and not timm's."""
    return bool(node.get("module"))


def resolve_preprocessing(node: DictConfig) -> Preprocessing:
    """Take the input from the backbone's own data configuration and the options that override it.

    Args:
        node: the ``backbone`` part of a configuration.

    Raises:
        UserError: an unknown architecture, or a size, crop, mean or std that makes no sense.
    """
    config = MODULE_INPUT if is_module(node) else default_config(str(node.name))
    size = config["input_size"][-1] if node.image_size is None else node.image_size
    crop = config["crop_pct"] if node.crop_pct is None else node.crop_pct
    if size < 8:
        raise UserError(f"backbone.image_size={size}: expected at least 8 pixels.")
    if not 0 < crop <= 1:
        raise UserError(f"backbone.crop_pct={crop}: expected a share in (0, 1].")
    mean = tuple(float(value) for value in (node.get("mean") or config["mean"]))
    std = tuple(float(value) for value in (node.get("std") or config["std"]))
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise UserError(
            f"backbone.mean={list(mean)} and backbone.std={list(std)}: expected one value each a "
            "channel, for images in [0, 1], and positive ones in std."
        )
    return Preprocessing(
        size=int(size),
        mean=mean,
        std=std,
        interpolation=str(node.get("interpolation") or config["interpolation"]),
        crop_pct=float(crop),
    )


def open_backbone(node: DictConfig, image_size: int) -> nn.Module:
    """Create a backbone without classifier, with random weights from torch's generator.

    Args:
        node: the ``backbone`` part of a configuration.
        image_size: pixels.

    Raises:
        UserError: it can't be built.
    """
    if is_module(node):
        channels = len(resolve_preprocessing(node).mean)
        return create_module(node.module, node.get("cut"), image_size, channels)
    kwargs: Any = OmegaConf.to_container(node.kwargs, resolve=True)
    return create_backbone(str(node.name), kwargs, image_size)


def check_backbone(node: DictConfig) -> None:
    """Build a backbone once, so that a bad one fails before data is read.

    Raises:
        UserError: options that do not go together, a backbone that can't be built, or a module
            that brings weights of its own.
    """
    size = resolve_preprocessing(node).size
    if is_module(node):
        _check_options(node)
    elif node.get("cut") is not None:
        raise UserError(
            f"backbone.cut={node.cut} is for modules of your own (backbone=module); timm's models "
            "are made without classifier. Set backbone.cut=null."
        )
    _check(json.dumps(OmegaConf.to_container(node, resolve=True), sort_keys=True), size)


def backbone_identity(node: DictConfig) -> list[Any]:
    """Return what tells a backbone from others: what is built, and the input that it gets.

    A module of the user's counts with the SHA-256 of the file that defines it, unless that file
    belongs to an installed package.
    """
    given = vars(resolve_preprocessing(node))
    if not is_module(node):
        return [node.name, OmegaConf.to_container(node.kwargs, resolve=True), given]
    module: Any = OmegaConf.to_container(node.module, resolve=True)
    return [{"module": module, "cut": node.get("cut"), "code": _code(module["_target_"])}, given]


def keep_map_alone(backbone: nn.Module, images: Tensor) -> None:
    """Replace by identities the parts that only follow the pooling, in place.

    A head on the unpooled map never calls them (MobileNetV3's ``conv_head``, VGG's ``pre_logits``,
    the norm after ConvNeXt's pooling); left in, they would be parameters that get no gradient.

    Args:
        backbone: with ``forward_features``.
        images: (B, channels, H, W) of any values.
    """
    body: Any = backbone
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    parameters = [(n, p) for n, p in backbone.named_parameters() if p.requires_grad]
    with torch.enable_grad():
        total = body.forward_features(images).sum()
        found = torch.autograd.grad(total, [p for _, p in parameters], allow_unused=True)
    for module, mode in modes.items():
        module.training = mode
    unused = {n for (n, _), grad in zip(parameters, found, strict=True) if grad is None}
    _drop(backbone, "", unused)


def _drop(module: nn.Module, prefix: str, unused: set[str]) -> None:
    for name, child in list(module.named_children()):
        own = {f"{prefix}{name}.{inner}" for inner, _ in child.named_parameters()}
        if own and own <= unused:
            setattr(module, name, nn.Identity())
        elif own & unused:
            _drop(child, f"{prefix}{name}.", unused)


def _check_options(node: DictConfig) -> None:
    if "_target_" not in node.module:
        raise UserError(
            f"backbone.module={OmegaConf.to_container(node.module)}: expected a node with "
            "_target_. Use backbone=module backbone.module._target_=PACKAGE.CLASS."
        )
    if node.kwargs:
        raise UserError(
            f"backbone.kwargs={dict(node.kwargs)} are timm's. Write a module's own options as "
            "backbone.module.OPTION=VALUE."
        )
    if timm.is_model(str(node.name)):
        raise UserError(
            f"backbone.name={node.name} is timm's, and backbone.module is given too. Use "
            "backbone=module, or leave backbone.module out."
        )


@lru_cache(maxsize=32)
def _check(text: str, size: int) -> None:
    node: DictConfig = OmegaConf.create(json.loads(text))
    if not is_module(node):
        with torch.device("meta"):
            open_backbone(node, size)
        return
    with torch.random.fork_rng(devices=[]):
        open_backbone(node, size)
    if not starts_at_random(node.module):
        raise UserError(
            f"backbone.module._target_={node.module['_target_']} starts from the same weights "
            "whatever the seed: scratch would not be scratch. Turn its own pretrained weights off "
            "and give them by source=checkpoint source.path=FILE."
        )


def _code(target: str) -> str | None:
    try:
        file = inspect.getsourcefile(locate("backbone.module", target))
    except TypeError:  # what has no source of its own
        return None
    if file is None or "site-packages" in Path(file).parts:
        return None
    return sha256_file(Path(file))
