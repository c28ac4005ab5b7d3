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


def lay_out(model: M, *, channels_last: bool = True) -> M:
    """Return the model in channels_last, its last and heaviest convolutions as matrix products.

    A convolution's weights are put into another order for each pass over them, and its kernel
    slides over padding as over images. Where a map has shrunk to a few positions and the weights
    outweigh it, this is most of the time: one product of patches and weights as they lie takes
    a half to a fifth of it on a CPU, in fp32 and in bf16. Sums are the same but for their
    rounding. Which layers it concerns follows from shapes alone, so that it is the same on all
    machines; devices other than CPUs compute all layers as they come.

    In half precision, gradients of weights that meet nothing but padding are zero, as they should
    be: where a kernel strides over so small a map, oneDNN leaves there what the memory held
    before (PyTorch 2.14, processors with AMX), mostly NaN or noise.

    Args:
        model: changed in place; its parameters, modules and their types stay.
        channels_last: False leaves the memory format, and all products of that kind, as they are.
    """
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if type(module) is nn.Conv2d and not isinstance(module.padding, str):
            method = _convolved if channels_last and _is_heavy(module) else _guarded
            module.__dict__["_conv_forward"] = MethodType(method, module)
    return model


def _is_heavy(conv: nn.Conv2d) -> bool:
    heavy = conv.weight.numel() >= 4 * WEIGHTS and max(conv.kernel_size) > 1
    dense = conv.groups == 1 and max(conv.dilation) == 1
    return heavy and dense and conv.padding_mode == "zeros"


def _convolved(conv: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a layer's output (N, O, H, W), as a product where that is faster."""
    if images.device.type == "cpu" and images.ndim == 4:
        height, width = _output(conv, images)
        few = min(height, width) > 0 and height * width <= POSITIONS
        if few and weight.numel() >= WEIGHTS * max(height * width, 4):
            return _product(conv, images, weight, bias, height, width)
    return _guarded(conv, images, weight, bias)


def _guarded(conv: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a layer's output by torch's own method, without weights that meet only padding."""
    if max(conv.stride) > 1 and _is_half(images) and weight.requires_grad:
        unused = _unused(conv, images)
        if unused is not None:
            weight = weight.masked_fill(unused, 0.0)
    found: Tensor = nn.Conv2d._conv_forward(conv, images, weight, bias)
    return found


def _is_half(images: Tensor) -> bool:
    halved = images.dtype in (torch.bfloat16, torch.float16)
    return images.device.type == "cpu" and (halved or torch.is_autocast_enabled("cpu"))


def _unused(conv: nn.Conv2d, images: Tensor) -> Tensor | None:
    """Return where a kernel (KH, KW) meets no position of these images; None if nowhere."""
    met = []
    for axis, around in enumerate(_padding(conv)):
        size, step = int(images.shape[axis - 2]), conv.dilation[axis]
        reach = step * (conv.kernel_size[axis] - 1)
        starts = range(-around, size + around - reach, conv.stride[axis])
        met.append([any(0 <= s + step * tap < size for s in starts)
                    for tap in range(conv.kernel_size[axis])])  # fmt: skip
    if (all(met[0]) and all(met[1])) or conv.padding_mode != "zeros":
        return None
    down, right = (torch.tensor(axis, device=images.device) for axis in met)
    return ~(down[:, None] & right[None, :])


def _output(conv: nn.Conv2d, images: Tensor) -> tuple[int, int]:
    height, width = (
        (int(images.shape[axis - 2]) + 2 * around - conv.kernel_size[axis]) // conv.stride[axis] + 1
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
