"""How a model lies in memory, and how its smallest feature maps are convolved on a CPU."""

from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

M = TypeVar("M", bound=nn.Module)

POSITIONS = 16
"""The largest map, of output positions, that is convolved as a matrix product."""
WEIGHTS = 2**16
"""A layer's weights for each of them, from which on that is faster."""


def lay_out(model: M) -> M:
    """Return the model in channels_last, its last and heaviest convolutions as matrix products.

    A convolution's weights are put into another order for each pass over them, and its kernel
    slides over padding as over images. Where a map has shrunk to a few positions and the weights
    outweigh it, this is most of the time: one product of patches and weights as they lie takes
    a half to a fifth of it on a CPU, in fp32 and in bf16. Sums are the same but for their
    rounding. Which layers it concerns follows from shapes alone, so that it is the same on all
    machines; devices other than CPUs compute all layers as they come.

    Args:
        model: changed in place; its parameters, modules and their types stay.
    """
    model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__dict__["_conv_forward"] = MethodType(_convolved, module)
    return model


def _is_plain(conv: nn.Conv2d) -> bool:
    heavy = conv.weight.numel() >= 4 * WEIGHTS and max(conv.kernel_size) > 1
    dense = conv.groups == 1 and max(conv.dilation) == 1
    return heavy and dense and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _convolved(conv: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a layer's output (N, O, H, W); torch's own method of the same name does the rest."""
    if images.device.type == "cpu" and images.ndim == 4:
        height, width = _output(conv, images)
        few = min(height, width) > 0 and height * width <= POSITIONS
        if few and weight.numel() >= WEIGHTS * max(height * width, 4):
            return _product(conv, images, weight, bias, height, width)
    found: Tensor = nn.Conv2d._conv_forward(conv, images, weight, bias)
    return found


def _output(conv: nn.Conv2d, images: Tensor) -> tuple[int, int]:
    height, width = (
        (int(images.shape[2 + axis]) + 2 * around - conv.kernel_size[axis]) // conv.stride[axis] + 1
        for axis, around in enumerate(_padding(conv))
    )
    return height, width


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(conv.padding, str)
    down, right = conv.padding
    return down, right


def _product(
    conv: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None, height: int, width: int
) -> Tensor:
    """Multiply the patches below each output position with all weights."""
    (down, right), (tall, wide) = _padding(conv), conv.kernel_size
    rows, columns = conv.stride
    padded = pad(images, (right, right, down, down)).permute(0, 2, 3, 1)
    patches = torch.cat(
        [
            padded[
                :,
                top : top + rows * (height - 1) + 1 : rows,
                left : left + columns * (width - 1) + 1 : columns,
            ]
            for top in range(tall)
            for left in range(wide)
        ],
        dim=-1,
    )
    flat = weight.permute(0, 2, 3, 1).flatten(1)
    found = linear(patches.flatten(0, 2), flat, bias)
    return found.view(len(images), height, width, -1).permute(0, 3, 1, 2)
