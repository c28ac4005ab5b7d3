"""One linear layer."""

from torch import Tensor, nn


class LinearHead(nn.Linear):
    """Logits as an affine map of the pooled features.

    Args:
        in_features: width F of the features.
        num_classes: C.

    Shape:
        (B, F) -> (B, C).
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        nn.init.trunc_normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to (B, C) logits."""
        return super().forward(features)
