"""Unpooled feature maps of any backbone, as tokens."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transferlab.errors import UserError


@dataclass(frozen=True)
class MapLayout:
    """How a backbone lays out its unpooled features.

    Attributes:
        kind: ``NCHW`` or ``NHWC`` for (B, C, H, W) and (B, H, W, C), ``NLC`` for (B, N, C).
        width: C.
        prefix: how many tokens come first that stand for no position (class token, registers).
    """

    kind: Literal["NCHW", "NHWC", "NLC"]
    width: int
    prefix: int = 0


def map_layout(backbone: nn.Module, images: Tensor) -> MapLayout:
    """Find out how a backbone lays out its features, by one forward pass in eval mode.

    Three dimensions are tokens. Four are taken for (B, C, H, W), unless the backbone's
    ``output_fmt`` says NHWC, as timm's do; its ``num_prefix_tokens`` counts the prefix.

    Args:
        backbone: with ``forward_features``.
        images: (B, channels, H, W) of any values.

    Raises:
        UserError: the backbone has no unpooled features.
    """
    body: Any = backbone
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad():
            features = body.forward_features(images)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        found = (
            f"features of shape {tuple(features.shape)}"
            if isinstance(features, Tensor)
            else f"a {type(features).__name__} of several maps"
        )
        raise UserError(
            f"the head takes an unpooled map, but the backbone gives {found}. "
            "Use a head on pooled features, such as head=linear."
        )
    if features.ndim == 3:
        prefix = int(getattr(backbone, "num_prefix_tokens", 0) or 0)
        # one token in all is the class token itself: then there are no positions to keep
        return MapLayout("NLC", features.shape[-1], prefix if features.shape[1] > prefix else 0)
    if str(getattr(backbone, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC"):
        return MapLayout("NHWC", features.shape[-1])
    return MapLayout("NCHW", features.shape[1])


def to_tokens(features: Tensor, layout: MapLayout, *, prefix: bool = False) -> Tensor:
    """Bring an unpooled map to (B, N, C) tokens, positions row by row.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C), as ``layout`` says.
        layout: of the backbone.
        prefix: keep the tokens that stand for no position.
    """
    if layout.kind == "NCHW":
        return features.flatten(2).transpose(1, 2)
    if layout.kind == "NHWC":
        return features.flatten(1, 2)
    return features if prefix else features[:, layout.prefix :]
