"""Attention pooling: a learnt query asks all tokens, a linear layer labels the answer."""

from typing import ClassVar, Literal

from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from transferlab.errors import UserError
from transferlab.heads.tokens import MapLayout, to_tokens


class AttentionPoolHead(nn.Module):
    """Layer norm, one cross-attention from a learnt query to the tokens, a linear layer.

    An attentive probe: a frozen backbone's positions are weighted for the target instead of
    averaged. timm's AttentionPoolLatent does the attention. Positions carry no code of their own,
    so the logits do not depend on the order of the tokens.

    Sources: Lee et al., ICML 2019 (arXiv:1810.00825); as a probe, Chen et al., IJCV 2024
    (arXiv:2202.03026).

    Args:
        in_features: width C of the map.
        num_classes: classes.
        layout: of the map.
        heads: attention heads; must divide the width.
        mlp_ratio: hidden width of a residual MLP after the attention over C; 0 leaves out both
            the MLP and the projection before it.
        prefix_tokens: let the query see the class token and registers too.

    Shape:
        (B, C, H, W), (B, H, W, C) or (B, N, C) -> (B, num_classes).
    """

    takes: ClassVar[Literal["map"]] = "map"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        layout: MapLayout,
        heads: int = 8,
        mlp_ratio: float = 0.0,
        prefix_tokens: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or in_features % heads:
            fit = [str(n) for n in range(1, 33) if in_features % n == 0]
            raise UserError(
                f"head.heads={heads} does not divide the backbone's {in_features} features. "
                f"Set head.heads to one of {', '.join(fit)}."
            )
        if mlp_ratio < 0:
            raise UserError(f"head.mlp_ratio={mlp_ratio}: expected 0 or a positive number.")
        self.layout, self.prefix_tokens = layout, prefix_tokens
        self.norm = nn.LayerNorm(in_features)
        self.pool = AttentionPoolLatent(
            in_features,
            out_features=in_features if mlp_ratio else 0,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            norm_layer=nn.LayerNorm,
        )
        self.classifier = nn.Linear(in_features, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map an unpooled map to (B, num_classes) logits."""
        tokens = to_tokens(features, self.layout, prefix=self.prefix_tokens)
        logits: Tensor = self.classifier(self.pool(self.norm(tokens)))
        return logits
