"""A hidden layer before the logits."""

from torch import nn

from transferlab.errors import UserError


class MLPHead(nn.Sequential):
    """Linear, GELU, dropout, linear.

    Args:
        in_features: width F of the features.
        num_classes: C.
        hidden: width of the hidden layer.
        dropout: share of the hidden units that is dropped, in [0, 1).

    Shape:
        (B, F) -> (B, C).
    """

    def __init__(
        self, in_features: int, num_classes: int, hidden: int = 512, dropout: float = 0.0
    ) -> None:
        if hidden < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"head mlp: got hidden={hidden}, dropout={dropout}; "
                "expected head.hidden of at least 1 and head.dropout in [0, 1)."
            )
        last = nn.Linear(hidden, num_classes)
        nn.init.trunc_normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(in_features, hidden), nn.GELU(), nn.Dropout(dropout), last)
