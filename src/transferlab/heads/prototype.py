"""Nearest class mean, with a learnt scale."""

import math

import torch
from torch import Tensor, nn

from transferlab.errors import UserError


class PrototypeHead(nn.Module):
    """Logits as minus the scaled squared distance to the mean features of each class.

    The means come in closed form from the training set, so the head starts as the nearest-mean
    classifier; what trains is the scale, and the backbone where the strategy trains it. Between
    two refits the means stand still.

    Sources: Mensink et al., TPAMI 2013 (distance-based nearest class mean); Snell et al., NeurIPS
    2017 (arXiv:1703.05175).

    Args:
        in_features: width F of the features.
        num_classes: C.
        scale: the scale's first value, positive; None takes 1 / F.

    Shape:
        (B, F) -> (B, C). A class without training images gets the lowest of the others' logits.
    """

    centres: Tensor
    present: Tensor

    def __init__(self, in_features: int, num_classes: int, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise UserError(f"head.scale={scale}: expected a positive number, or null for 1 / F.")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 1 / in_features)))
        self.register_buffer("centres", torch.zeros(num_classes, in_features))
        self.register_buffer("present", torch.ones(num_classes, dtype=torch.bool))

    def refit(self, features: Tensor, labels: Tensor) -> None:
        """Take each class's mean over (N, F) features with (N,) labels."""
        features = features.to(self.centres.device, torch.float64)
        labels = labels.to(self.centres.device)
        classes, width = self.centres.shape
        counts = torch.bincount(labels, minlength=classes)
        sums = features.new_zeros(classes, width).index_add_(0, labels, features)
        self.centres.copy_(sums / counts.clamp(min=1)[:, None])
        self.present.copy_(counts > 0)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to (B, C) logits."""
        kind = torch.promote_types(features.dtype, torch.float32)
        # without the matrix product |f|^2 - 2fc + |c|^2, which loses small distances to rounding
        distances = torch.cdist(
            features.to(kind), self.centres.to(kind), compute_mode="donot_use_mm_for_euclid_dist"
        )
        logits = -self.log_scale.exp() * distances.square()
        lowest = logits.masked_fill(~self.present, math.inf).amin(dim=1, keepdim=True)
        return torch.where(self.present, logits, lowest)
