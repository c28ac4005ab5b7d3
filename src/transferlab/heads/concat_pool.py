"""The head that fastai puts on convolutional bodies."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from transferlab.errors import UserError
from transferlab.heads.tokens import MapLayout, to_tokens


class ConcatPoolHead(nn.Module):
    """Mean and maximum over positions, side by side, then two normalised linear layers.

    After the pooling: batch norm, dropout at half the rate, linear, ReLU, batch norm, dropout,
    linear. Linear layers have no bias, since each follows a batch norm, and start from He's normal
    initialisation. Tokens that stand for no position are left out. Batch norm needs at least two
    images a batch.

    Source: Howard and Gugger, Information 2020 (arXiv:2002.04688).

    Args:
        in_features: width C of the map.
        num_classes: classes.
        layout: of the map.
        hidden: width of the hidden layer.
        dropout: share of the hidden units that is dropped, in [0, 1); half of it before the first
            linear layer.

    Shape:
        (B, C, H, W), (B, H, W, C) or (B, N, C) -> (B, num_classes).
    """

    takes: ClassVar[Literal["map"]] = "map"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        layout: MapLayout,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if hidden < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"head concat_pool: got hidden={hidden}, dropout={dropout}; "
                "expected head.hidden of at least 1 and head.dropout in [0, 1)."
            )
        self.layout = layout
        self.layers = nn.Sequential(
            nn.BatchNorm1d(2 * in_features),
            nn.Dropout(dropout / 2),
            nn.Linear(2 * in_features, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(hidden),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes, bias=False),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map an unpooled map to (B, num_classes) logits."""
        tokens = to_tokens(features, self.layout)
        logits: Tensor = self.layers(torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1))
        return logits
