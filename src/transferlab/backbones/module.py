"""Bodies that are not timm's: any ``nn.Module`` of the user's."""

from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from transferlab.building import build
from transferlab.errors import UserError, nearest


class ModuleBackbone(nn.Module):
    """A module of the user's as a backbone: ``forward`` pools, ``forward_features`` does not.

    Args:
        body: from (B, channels, H, W) to (B, F), (B, C, H, W) or (B, N, C). Four dimensions are
            taken for (B, C, H, W), unless the module has an attribute ``output_fmt = "NHWC"``.
        cut: dotted path of the classifier inside, which an identity replaces; None where the
            module gives features already.
        name: for error messages.

    Raises:
        UserError: there is no such path.
    """

    def __init__(self, body: nn.Module, cut: str | None, name: str) -> None:
        super().__init__()
        self.body, self.cut, self.name = body, cut, name
        self.num_features = 0  # known after a forward pass
        self.output_fmt = str(getattr(body, "output_fmt", "NCHW"))
        self.num_prefix_tokens = int(getattr(body, "num_prefix_tokens", 0) or 0)
        if cut is not None:
            self._cut_off(cut)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, channels, H, W) images to (B, F) features: means over positions."""
        features = self.forward_features(images)
        if features.ndim == 4:
            return features.mean(dim=(1, 2) if self.output_fmt == "NHWC" else (2, 3))
        return features.mean(dim=1) if features.ndim == 3 else features

    def forward_features(self, images: Tensor) -> Tensor:
        """Map (B, channels, H, W) images to whatever the module gives, unpooled."""
        try:
            features = self.body(images)
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            raise UserError(
                f"{self.name} calls view() on images in channels_last order. Set "
                "trainer.channels_last=false, or write flatten() or reshape() there."
            ) from error
        if not isinstance(features, Tensor) or features.ndim not in (2, 3, 4):
            found = (
                f"a tensor of shape {tuple(features.shape)}"
                if isinstance(features, Tensor)
                else f"a {type(features).__name__}"
            )
            raise UserError(
                f"{self.name} gives {found}; expected (B, F), (B, C, H, W) or (B, N, C) features. "
                "Set backbone.cut, or the module's own options (aux_logits=false in torchvision)."
            )
        return features

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that the module asks to be left out of weight decay."""
        listed = getattr(self.body, "no_weight_decay", None)
        return {f"body.{name}" for name in listed()} if callable(listed) else set()

    def _cut_off(self, path: str) -> None:
        known = [name for name, _ in self.body.named_modules() if name]
        if path not in known:
            raise UserError(
                f"backbone.cut={path}: {self.name} has no such part ({nearest(path, known)}). "
                "Name the classifier's path, or set backbone.cut=null."
            )
        parent, _, child = path.rpartition(".")
        setattr(self.body.get_submodule(parent), child, nn.Identity())


def create_module(
    node: DictConfig, cut: str | None, image_size: int, channels: int
) -> ModuleBackbone:
    """Build a module of the user's and measure its features on a small batch of zeros.

    Args:
        node: with ``_target_``: a class or a function that returns an ``nn.Module``.
        cut: path of its classifier, or None.
        image_size: pixels.
        channels: of the input.

    Raises:
        UserError: it can't be built, is no module, or does not take such images.
    """
    name = str(node["_target_"])
    body = build(node, _convert_="all")
    if not isinstance(body, nn.Module):
        raise UserError(
            f"backbone.module._target_={name} gives a {type(body).__name__}, not a module. "
            "Name a subclass of torch.nn.Module, or a function that returns one."
        )
    backbone = ModuleBackbone(body, cut, name)
    backbone.num_features = _measure(backbone, (2, channels, image_size, image_size))
    return backbone


def _measure(backbone: ModuleBackbone, shape: tuple[int, ...]) -> int:
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad():
            width = int(backbone(torch.zeros(shape)).shape[-1])
    except UserError:
        raise
    except Exception as error:  # whatever the module raises on images that it does not take
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise UserError(
            f"{backbone.name} fails on images of shape {shape} ({type(error).__name__}: {reason}). "
            "Set backbone.image_size, backbone.mean and backbone.std (a value a channel), or "
            "backbone.cut."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    return width


def starts_at_random(node: DictConfig) -> bool:
    """Say whether a module's weights follow from torch's generator, as those of scratch must.

    Built from two seeds, at least one matrix must differ; a module that loads weights of its own
    gives the same twice.
    """
    matrices: list[list[Tensor]] = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            body: Any = build(node, _convert_="all")
            matrices.append([p.detach() for p in body.parameters() if p.ndim > 1])
    pairs = list(zip(*matrices, strict=True))
    return not pairs or any(not torch.equal(one, other) for one, other in pairs)
