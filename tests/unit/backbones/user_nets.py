"""Modules as users write them, for the tests of backbones that are not timm's."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A small convolutional classifier."""

    def __init__(self, width: int = 8, classes: int = 7, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width))
        self.block = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.head = nn.ModuleDict({"fc": nn.Linear(2 * width, classes)})

    def forward(self, images: Tensor) -> Tensor:
        features = self.block(self.stem(images).relu()).relu()
        return self.head["fc"](features.mean(dim=(2, 3)))


class Maps(Net):
    """Gives its map, (B, C, H, W)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(width)
        del self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.block(self.stem(images).relu())


class LastMaps(Maps):
    """Gives its map with the channels last."""

    output_fmt = "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).permute(0, 2, 3, 1)


class Tokens(Maps):
    """Gives tokens, and asks for one parameter without weight decay."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(width)
        self.position = nn.Parameter(torch.zeros(1, 1, 2 * width))

    def no_weight_decay(self) -> set[str]:
        return {"position"}

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(2).transpose(1, 2) + self.position


class Viewing(Net):
    """Flattens by view, as much code does."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.block(self.stem(images).relu())
        return features.view(len(features), -1)


class Pretrained(Net):
    """Loads weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.5)


class Several(nn.Module):
    """Gives more than one tensor."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


def no_module() -> int:
    """Return something that is no module."""
    return 3
