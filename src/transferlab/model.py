"""A backbone and a head, with modules held in the mode that the strategy wants."""

from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from transferlab.backbones.timm import no_weight_decay


class TransferModel(nn.Module):
    """A backbone and a head.

    Args:
        name: of the backbone.
        backbone: (B, channels, H, W) -> (B, F), or with ``forward_features`` to the unpooled map.
        head: (B, F), or the map where its ``takes`` is "map", -> (B, C).
    """

    def __init__(self, name: str, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.name, self.backbone, self.head = name, backbone, head
        self.adapter_modules: list[nn.Module] = []
        self._held: Sequence[tuple[nn.Module, bool]] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, channels, H, W) normalised images to (B, C) logits."""
        return cast(Tensor, self.head(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        """Map normalised images to what the head takes: (B, F), or the unpooled map."""
        if getattr(self.head, "takes", "pooled") == "map":
            backbone: Any = self.backbone
            return cast(Tensor, backbone.forward_features(images))
        return cast(Tensor, self.backbone(images))

    def undecayed(self) -> set[str]:
        """Return the names of parameters that are left out of weight decay whatever their shape.

        The backbone asks for some, also where an adapter took a layer's place; an adapter's
        factors (one a channel) would be pulled to 0, where 1 is what changes nothing.
        """
        listed = {f"backbone.{name}" for name in no_weight_decay(self.backbone)}
        factors = {id(p) for m in self.adapter_modules for p in _factors(m)}
        return {
            name
            for name, parameter in self.named_parameters()
            if name.replace(".base_layer", "") in listed or id(parameter) in factors
        }

    def hold(self, modes: Sequence[tuple[nn.Module, bool]]) -> None:
        """Keep modules in train or eval mode, whatever ``train()`` is called on the model.

        Frozen means frozen: norm statistics, dropout and drop-path of a frozen part stand still.
        ``eval()`` still puts every module into eval mode.
        """
        self._held = modes
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every module, then put those that are held back into theirs."""
        super().train(mode)
        if mode:
            for module, held in self._held:
                module.training = held
        return self

    def norm_layers(self) -> list[_BatchNorm]:
        """Return the backbone's layers with running statistics."""
        return [
            module
            for module in self.backbone.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]

    def calibrate_norms(self, batches: Iterable[Tensor]) -> None:
        """Give random weights running statistics of images, without labels; ends in eval mode.

        Left at mean 0 and variance 1 a frozen random backbone would be crippled, and any source
        would look good beside it.

        Args:
            batches: normalised input on the model's device.
        """
        norms = self.norm_layers()
        momenta = [norm.momentum for norm in norms]
        self.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        if norms:
            with torch.no_grad():
                for images in batches:
                    self.features(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.eval()


def _factors(adapter: nn.Module) -> list[nn.Parameter]:
    """Return an adapter's vectors, in whatever shape; a layer's matrix of rank 1 is none."""
    return [
        parameter
        for module in adapter.modules()
        if not isinstance(module, nn.Linear | _ConvNd)
        for parameter in module.parameters(recurse=False)
        if parameter.numel() == max(parameter.shape, default=1)
    ]
