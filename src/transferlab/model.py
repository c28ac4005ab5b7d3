"""A backbone and a head, cut into layer groups that can be frozen for real."""

from typing import Self, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferlab.backbones.groups import Granularity, layer_ids, module_groups
from transferlab.backbones.timm import no_weight_decay
from transferlab.errors import UserError


class TransferModel(nn.Module):
    """A backbone and a head, with the backbone's layer groups.

    Frozen means frozen: a frozen group has no gradients and stays in eval mode, whatever
    ``train()`` is called on the model, so its norm statistics, dropout and drop-path stand still.

    Args:
        name: the timm architecture of the backbone.
        backbone: (B, channels, H, W) -> (B, F).
        head: (B, F) -> (B, C).
    """

    def __init__(self, name: str, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.name, self.backbone, self.head = name, backbone, head
        self._frozen: list[nn.Module] = []
        self._trained_from: tuple[int, Granularity] | None = None
        self._cut: dict[Granularity, tuple[dict[str, int], list[list[nn.Module]]]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, channels, H, W) normalised images to (B, C) logits."""
        return cast(Tensor, self.head(self.backbone(images)))

    def decay_layers(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Return the fine layer groups for rates, stem first, the head last, as timm counts them.

        A final norm that timm counts to the classifier is in the head's group here.
        """
        ids, head = layer_ids(self.name, self.backbone, "blocks")
        layers: list[list[tuple[str, nn.Parameter]]] = [[] for _ in range(head + 1)]
        for name, parameter in self.backbone.named_parameters():
            layers[ids[name]].append((f"backbone.{name}", parameter))
        layers[head] += [(f"head.{name}", p) for name, p in self.head.named_parameters()]
        return layers

    def undecayed(self) -> set[str]:
        """Return the names of parameters that the backbone asks to be left out of weight decay."""
        return {f"backbone.{name}" for name in no_weight_decay(self.backbone)}

    def group_count(self, granularity: Granularity) -> int:
        """Return the number of layer groups for unfreezing, the head included."""
        return len(self._groups(granularity)[1]) + 1

    def train_from(self, first: int, granularity: Granularity = "stages") -> None:
        """Freeze every group before ``first`` and let the others train.

        Args:
            first: 0 trains all; ``group_count(granularity) - 1`` trains the head alone.
            granularity: the unit in which groups are counted.
        """
        ids, groups = self._groups(granularity)
        if not 0 <= first <= len(groups):
            raise UserError(
                f"asked to train from group {first} of {self.name}, which has {len(groups)} "
                f"groups of {granularity} below its head."
            )
        if self._trained_from == (first, granularity):
            return
        top = len(groups) - 1
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(min(ids[name], top) >= first)
        whole = [self.backbone] if first == len(groups) else []
        self._frozen = whole or [module for group in groups[:first] for module in group]
        self._trained_from = (first, granularity)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every module, and put what is frozen back into eval."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def norm_layers(self) -> list[_BatchNorm]:
        """Return the backbone's layers with running statistics."""
        return [
            module
            for module in self.backbone.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]

    def _groups(self, granularity: Granularity) -> tuple[dict[str, int], list[list[nn.Module]]]:
        if granularity not in self._cut:
            ids, head = layer_ids(self.name, self.backbone, granularity)
            self._cut[granularity] = ids, module_groups(self.backbone, ids, head)
        return self._cut[granularity]
