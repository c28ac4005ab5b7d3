"""Linear heads that are solved for instead of trained."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]


class SolvedHead(nn.Module):
    """An affine map of the features that follows from the training set by a solver.

    Features are standardised by the training set's means and deviations before; both are folded
    into the map. Nothing in it is a parameter: gradients change neither it nor the backbone.

    Args:
        in_features: width F of the features.
        num_classes: C.

    Shape:
        (B, F) -> (B, C). A class without training images gets the lowest of the others' logits.
        All logits are 0 before the first ``refit``.
    """

    gradient: ClassVar[bool] = False
    weight: Tensor
    bias: Tensor
    present: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, in_features))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("present", torch.ones(num_classes, dtype=torch.bool))

    def refit(self, features: Tensor, labels: Tensor) -> None:
        """Solve for (N, F) features and their (N,) labels."""
        x, y = features.double().cpu().numpy(), labels.cpu().numpy()
        classes, codes = np.unique(y, return_inverse=True)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        spread[spread == 0] = 1.0
        weight, bias = np.zeros(self.weight.shape), np.zeros(len(self.bias))
        if len(classes) > 1:  # else there is nothing to tell apart
            own, offset = self.solve((x - mean) / spread, codes)
            weight[classes] = own / spread
            bias[classes] = offset - (own / spread) @ mean
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))
        self.present.zero_()[torch.from_numpy(classes)] = True

    @abstractmethod
    def solve(self, features: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return (C, F) weights and (C,) offsets for (N, F) features of C >= 2 classes."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to (B, C) logits."""
        kind = torch.promote_types(features.dtype, self.weight.dtype)
        logits = nn.functional.linear(features.to(kind), self.weight.to(kind), self.bias.to(kind))
        lowest = logits.masked_fill(~self.present, torch.inf).amin(dim=1, keepdim=True)
        return torch.where(self.present, logits, lowest)
