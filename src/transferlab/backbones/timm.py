"""Bodies from timm, without their classifier, and the input that they were made for."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from transferlab.errors import UserError, nearest
from transferlab.records import sha256_record

BLOCK = 2**19
"""Numbers of input that are made at a time on a CPU, 2 MiB."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input: the same in every arm of a comparison.

    Attributes:
        size: side in pixels.
        mean, std: per channel, of images scaled to [0, 1].
        interpolation: PIL's name of the resize filter.
        crop_pct: share of the shorter side that the centre crop keeps, in (0, 1].
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        return sha256_record(vars(self))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn (B, C, H, W) images in [0, 1] into normalised (B, channels, H, W) input.

        Grey images (C = 1) are repeated over the backbone's channels.
        """
        mean = images.new_tensor(self.mean).view(1, -1, 1, 1)
        std = images.new_tensor(self.std).view(1, -1, 1, 1)
        return images.expand(-1, len(self.mean), -1, -1).sub(mean).div_(std)

    def from_uint8(
        self, images: Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        """Turn (B, C, H, W) uint8 images into normalised (B, channels, H, W) float32 input.

        On a CPU this goes by blocks that its cache holds: whole batches of large images would be
        written to memory once for each operation.
        """
        if images.device.type != "cpu":
            whole = self.normalise(images.float().div_(255))
            return whole.contiguous(memory_format=memory_format)
        shape = (len(images), len(self.mean), *images.shape[2:])
        made = torch.empty(shape, memory_format=memory_format)
        count = max(BLOCK // max(made[:1].numel(), 1), 1)
        for start in range(0, len(images), count):
            block = images[start : start + count].float().div_(255)
            made[start : start + count] = self.normalise(block)
        return made


def require_model(name: str) -> None:
    """Raise a UserError unless timm knows the architecture ``name``."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UserError(
            f"timm {timm.__version__} has no model {name!r} ({nearest(name, timm.list_models())}). "
            "Set backbone.name to one of timm.list_models()."
        )
    if tag:
        raise UserError(
            f"backbone.name={name} names weights too. Write backbone.name={architecture} and "
            f"source=published source.tag={tag}."
        )


def create_backbone(name: str, kwargs: dict[str, Any], image_size: int | None = None) -> nn.Module:
    """Create a timm model without classifier, with random weights from torch's generator.

    Args:
        name: a timm architecture.
        kwargs: passed to ``timm.create_model``.
        image_size: pixels; models with a fixed grid of positions are built for it.

    Raises:
        UserError: unknown name, arguments that the model refuses, or a size that it can't take.
    """
    require_model(name)
    arguments = {"num_classes": 0, **kwargs}
    if image_size is not None and _needs_size(name):
        arguments["img_size"] = image_size
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=False, **arguments))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"timm could not build {name} with {arguments}: {error}. "
            "Check backbone.kwargs and backbone.image_size."
        ) from error


@lru_cache(maxsize=32)
def default_config(name: str) -> dict[str, Any]:
    """Return timm's own data configuration of a model: input_size, mean, std, and so on."""
    require_model(name)
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return dict(resolve_model_data_config(model))


def feature_width(backbone: nn.Module) -> int:
    """Return the width of the pooled features: ``head_hidden_size`` where it differs.

    timm's ``num_features`` is 288 for mobilenetv3_small_050, whose pooled output has 1024, and
    512 for VGG, whose two wide layers after the pooling (4096) are part of the backbone.
    """
    return int(getattr(backbone, "head_hidden_size", None) or cast(int, backbone.num_features))


def no_weight_decay(backbone: nn.Module) -> set[str]:
    """Return the names of parameters that the model asks to be left out of weight decay."""
    listed = getattr(backbone, "no_weight_decay", None)
    return set(listed()) if callable(listed) else set()


@lru_cache(maxsize=32)
def _needs_size(name: str) -> bool:
    """Say whether a model is built for one input size (its config says fixed_input_size)."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return bool(cast(dict[str, Any], model.pretrained_cfg).get("fixed_input_size", False))
