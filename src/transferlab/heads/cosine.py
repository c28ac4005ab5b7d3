"""Logits as scaled cosines between features and one direction per class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferlab.errors import UserError


class CosineHead(nn.Module):
    """Cosine similarity to a learnt direction per class, times a learnt scale.

    The norm of the features does not count, which helps where classes have few examples.
    Source: Gidaris and Komodakis, CVPR 2018 (arXiv:1804.09458).

    Args:
        in_features: width F of the features.
        num_classes: C.
        scale: the scale's first value, positive.

    Shape:
        (B, F) -> (B, C), each logit in [-scale, scale].
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = 16.0) -> None:
        super().__init__()
        if not scale > 0:
            raise UserError(f"head cosine: got head.scale={scale}; expected a positive number.")
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())
        nn.init.normal_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to (B, C) logits."""
        cosine = F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))
        return cosine * self.log_scale.exp()
