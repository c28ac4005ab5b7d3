"""Batch norms of few channels, whose statistics torch's threads write into one cache line."""

from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

KINDS = (nn.BatchNorm2d, BatchNormAct2d)
CHANNELS = 36
"""The widest norm that is computed here."""
VALUES = 2**16
"""The fewest values that are: with fewer, calls cost more than they spare."""
LINE = 16
"""Numbers in fp32 that a cache line holds."""
ROW = 1024
"""Numbers of a row, at the most: as many positions as fit are summed side by side."""


def is_narrow(module: nn.Module) -> bool:
    """Say whether a module is a batch norm that :func:`normed` is the faster for.

    In channels_last, torch's threads keep their sums in rows of as many numbers as there are
    channels, one behind the other. Where rows don't end with a cache line, two threads write into
    one and wait for each other at every position of the backward pass, which takes two to five
    times as long. With more channels that is lost in the rest of the work.
    """
    if not isinstance(module, nn.BatchNorm2d) or type(module) not in KINDS:
        return False
    narrow = module.num_features <= CHANNELS and module.num_features % LINE > 0
    usual = module.affine and module.track_running_stats and module.momentum is not None
    return narrow and usual


def normed(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """Compute the output (N, C, H, W) of a norm that :func:`is_narrow`, timm's activation included.

    What isn't training in channels_last on a CPU in full precision is left to the layer's own
    method.
    """
    if not (norm.training and torch.is_grad_enabled() and _suits(images, norm.weight)):
        return type(norm).forward(norm, images)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    found = cast(Tensor, _BatchNorm.apply(images, norm.weight, norm.bias, norm))
    if isinstance(norm, BatchNormAct2d):
        found = norm.act(norm.drop(found))
    return found


def _suits(images: Tensor, weight: Tensor) -> bool:
    return (
        images.device.type == "cpu"
        and images.ndim == 4
        and images.dtype == weight.dtype
        and images.dtype in (torch.float32, torch.float64)
        and images.is_contiguous(memory_format=torch.channels_last)
        and images.shape[1] == len(weight)
        and images.numel() >= max(VALUES, 2 * len(weight))
        and not torch.compiler.is_compiling()
    )


class _BatchNorm(torch.autograd.Function):
    """torch's forward pass; its backward pass over rows of several positions each."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, images: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d
    ) -> Tensor:
        statistics = norm.running_mean, norm.running_var
        assert norm.momentum is not None
        found, mean, scale = torch.native_batch_norm(
            images, weight, bias, *statistics, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward(images, weight, mean, scale)
        ctx.norm = norm  # type: ignore[attr-defined]
        return found

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, scale = ctx.saved_tensors
        (gradient,) = outputs
        if torch.is_grad_enabled():  # it is to be differentiated itself, which torch's own can be
            norm: nn.BatchNorm2d = ctx.norm
            found = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, norm.running_mean, norm.running_var, mean, scale,
                True, norm.eps, [True] * 3,
            )  # fmt: skip
            return (*found, None)
        count, (number, width, height, breadth) = images.numel() // len(mean), images.shape
        side = _side_by_side(count, width)
        slopes, values = (
            x.permute(0, 2, 3, 1).reshape(count // side, side * width) for x in (gradient, images)
        )
        centred = values - mean.repeat(side)
        total = slopes.sum(0).view(side, width).sum(0)
        aligned = (slopes * centred).sum(0).view(side, width).sum(0) * scale
        if not ctx.needs_input_grad[0]:
            return None, aligned, total, None
        # each output's own slope, less what it shares through the mean and through the variance
        factor = weight * scale
        centred.mul_((-factor * scale * aligned / count).repeat(side))
        centred.add_((-factor * total / count).repeat(side))
        centred.addcmul_(slopes, factor.repeat(side))
        own = centred.view(number, height, breadth, width).permute(0, 3, 1, 2)
        return own, aligned, total, None


def _side_by_side(count: int, width: int) -> int:
    """Return how many positions one row holds: a power of two that divides their number."""
    side = 1
    while 2 * side * width <= ROW and count % (2 * side) == 0:
        side *= 2
    return side
