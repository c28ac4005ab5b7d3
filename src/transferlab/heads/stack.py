"""Several heads at once on the same features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from transferlab.heads.linear import LinearHead


class Stack:
    """Computes heads of one kind together; their parameters stay their own.

    Linear heads are computed by one batched product, in which each head's part has the shape that
    it has alone; heads of other kinds one after the other. The heads' parameters become views of
    shared memory, and so do their gradients.

    Args:
        heads: one or more, of one class and of equal shapes, each on the same device.

    Attributes:
        width: how many are computed, company that a lone one gets included.
        joint: (width, ...) tensors that the heads' parameters are views of; none for heads that
            are computed one after the other.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        self.heads = list(heads)
        linear = [head for head in heads if type(head) is LinearHead]
        self.joint: tuple[Tensor, ...] = ()
        if len(linear) == len(self.heads):
            self.joint = _joined([h.weight for h in linear]), _joined([h.bias for h in linear])
        self.width = len(self.joint[0]) if self.joint else len(self.heads)

    def parameters(self) -> list[tuple[nn.Parameter, ...]]:
        """Return the heads' parameters, those of one place in all heads together."""
        return list(zip(*(head.parameters() for head in self.heads), strict=True))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to the (G, B, C) logits of G heads."""
        if not self.joint:
            return torch.stack([head(features) for head in self.heads])
        weight, bias = self.joint
        shared = features.t().expand(len(weight), -1, -1)
        # weights first: their gradients come in the order that they lie in, twice as fast
        logits = torch.bmm(weight, shared) + bias[:, :, None]
        return logits[: len(self.heads)].transpose(1, 2)

    def clear(self) -> None:
        """Set all gradients to zero; they stay where they are."""
        if not self.joint:
            for head in self.heads:
                head.zero_grad()
            return
        for joint in self.joint:
            assert joint.grad is not None
            joint.grad.zero_()


def _joined(parameters: Sequence[Tensor]) -> Tensor:
    """Return (G, ...) values that the parameters become views of, their gradients too.

    A lone parameter gets company, so that it meets the same kernels as many do.
    """
    own = [p.detach() for p in parameters]
    joint = torch.stack(own if len(own) > 1 else [*own, torch.zeros_like(own[0])])
    joint.requires_grad_()
    joint.grad = torch.zeros_like(joint)
    for parameter, value, gradient in zip(parameters, joint.detach(), joint.grad, strict=False):
        parameter.data, parameter.grad = value, gradient
    return joint
