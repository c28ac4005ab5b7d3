"""The tiny models and data that the recipes run on. Nothing here depends on a peer's code."""

from collections import OrderedDict

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES, BATCH, PIXELS = 10, 4, 32


def backbone_and_head(name: str) -> nn.Sequential:
    """A timm backbone without classifier and a linear head, called so."""
    torch.manual_seed(0)
    kwargs = {"img_size": PIXELS} if "vit" in name else {}
    backbone = timm.create_model(name, num_classes=0, **kwargs)
    head = nn.Linear(backbone.num_features, CLASSES)
    return nn.Sequential(OrderedDict(backbone=backbone, head=head))


def classifier(name: str) -> nn.Module:
    """A timm model with its own classifier of ten classes."""
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES)


class FourLayers(nn.Module):
    """Four linear layers in a row: layer.0 to layer.3."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows)


def images(steps: int) -> DataLoader[tuple[Tensor, ...]]:
    """Batches for one epoch of so many steps."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(steps * BATCH, 3, PIXELS, PIXELS, generator=generator)
    return _loader(inputs, torch.arange(steps * BATCH) % CLASSES)


def rows(steps: int) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(steps * BATCH, 8, generator=generator)
    return _loader(inputs, torch.arange(steps * BATCH) % 8)


def _loader(inputs: Tensor, labels: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(inputs, labels), batch_size=BATCH)
